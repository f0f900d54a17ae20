"""Pure functions between our structs and the bytes of the API. No I/O, no clock, no state."""

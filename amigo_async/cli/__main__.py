"""``python -m amigo_async.cli``, the command where its script is not on the path."""

import sys

from amigo_async.cli import main

sys.exit(main())

"""What the sandbox calls its sets, unit tests and metrics, and what its evaluations say.

The story is that of a support agent. Every set has the first unit tests and metrics of the lists
below, so that metrics are shared between the unit tests of a set, and between sets.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class MetricStory(NamedTuple):
    """A metric: its criterion, and what an evaluation says of it.

    Attributes:
        name: Its name.
        criterion: What counts as success, in the form of the API.
        passed: A result that meets the criterion, and the justification.
        failed: A result that does not, and the justification.
    """

    name: str
    criterion: dict[str, Any]
    passed: tuple[Any, str]
    failed: tuple[Any, str]


def _boolean(name: str, good: str, bad: str, *, expected: bool = True) -> MetricStory:
    criterion = {"type": "boolean", "expected_value": expected}
    return MetricStory(name, criterion, (expected, good), (not expected, bad))


def _number(
    name: str, verb: str, threshold: float, good: tuple[Any, str], bad: tuple[Any, str]
) -> MetricStory:
    criterion = {"type": "numerical", "verb": verb, "threshold": threshold}
    return MetricStory(name, criterion, good, bad)


def _category(
    name: str, expected: list[str], good: tuple[Any, str], bad: tuple[Any, str]
) -> MetricStory:
    return MetricStory(name, {"type": "categorical", "expected_values": expected}, good, bad)


METRICS: Final = (
    _boolean(
        "Problem solved",
        "The caller got what the policy allows, and said so at the end.",
        "The caller asked three times and hung up without an answer.",
    ),
    _number(
        *("Politeness", ">=", 4),
        (5, "The agent thanked the caller, apologised once and never argued."),
        (2, "The agent interrupted the caller twice and said that the policy was clear enough."),
    ),
    _category(
        *("Tone", ["warm", "neutral"]),
        ("warm", "Short sentences, the caller's own words, no irony."),
        ("cold", "The agent answered an angry caller with numbered clauses."),
    ),
    _boolean(
        "Identity checked",
        "The agent asked for the order number and the postcode before it told anything.",
        "The agent read out the address before it had asked who was calling.",
    ),
    _number(
        *("Questions asked twice", "<", 2),
        (0, "Nothing was asked twice."),
        (3, "The agent asked for the order number three times."),
    ),
    _category(
        *("Outcome", ["refunded", "handed over"]),
        ("refunded", "The refund was announced with its amount and date."),
        ("refused", "The agent refused a refund that the policy grants within 30 days."),
    ),
    _boolean(
        "Promised more than the policy",
        "Every promise is in the policy.",
        "The agent promised a refund within the hour; the policy says five days.",
        expected=False,
    ),
    _number(
        *("Share of correct facts", ">", 0.9),
        (1.0, "All amounts and dates agree with the order."),
        (0.6, "Two of five facts are wrong: the amount, and the date of delivery."),
    ),
    _category(
        *("Language", ["English"]),
        ("English", "The whole conversation is in English."),
        ("mixed", "The agent changed to German after the caller's name."),
    ),
    _boolean(
        "Handed over on request",
        "The agent offered a colleague as soon as one was asked for.",
        "The caller asked for a person twice; the agent went on.",
    ),
    _number(
        *("Sentences an answer", "<=", 4),
        (3, "No answer is longer than four sentences."),
        (9, "The second answer has nine sentences."),
    ),
    _number(
        *("Greetings", "==", 1),
        (1, "The caller was greeted once, by name."),
        (2, "The caller was greeted again after the question about the order."),
    ),
    _number(
        *("Stars the caller would give", "!=", 1),
        (4, "The caller sounded satisfied, if in a hurry."),
        (1, "The caller's last words amount to a single star."),
    ),
    _category(
        *("Summary at the end", ["complete"]),
        ("complete", "What was agreed is repeated, with amount and date."),
        ("missing", "The agent ended the conversation without a summary."),
    ),
)

UNIT_TESTS: Final = (
    ("Angry caller wants money back", "A caller is charged for a returned parcel, and angry."),
    ("Charged twice for one order", "The bill shows the same order two times."),
    ("Parcel never arrived", "The tracking says delivered; the caller has no parcel."),
    ("Cancels after the free trial", "The caller cancels one day after the trial has ended."),
    ("Wrong size delivered", "The caller ordered a medium and got a small one."),
    ("Forgot the password", "The caller cannot sign in, and has a new telephone number."),
    ("Moves to another city", "The next delivery has to go to another address."),
    ("Asks for a person", "The caller does not want to talk to a machine."),
    ("Discount code is refused", "A code from a letter does not work at the checkout."),
    ("Speaks little English", "The caller uses short sentences, and some words of Spanish."),
    ("Calls for a neighbour", "The order belongs to somebody else."),
    ("Wants to know about the warranty", "A machine broke after 23 of 24 months."),
)

# What the unit tests are tagged with, in the same order.
AREAS: Final = (
    "billing",
    "billing",
    "deliveries",
    "billing",
    "deliveries",
    "account",
    "deliveries",
    "limits",
    "billing",
    "language",
    "account",
    "products",
)

SETS: Final = (
    ("Refund policy", "What is refunded, to whom, and how it is said."),
    ("Account access", "Passwords, addresses, and who may know what."),
    ("Deliveries", "Parcels that are late, lost or wrong."),
    ("Billing", "Invoices, charges and discounts."),
    ("Small talk and limits", "What the agent does not do, and how it says so."),
)


def titled(titles: tuple[tuple[str, str], ...], number: int) -> tuple[str, str]:
    """Return a name and a description; beyond the list they come again, with a number."""
    name, description = titles[number % len(titles)]
    turn = number // len(titles)
    return (f"{name} {turn + 1}" if turn else name), description


def metric_story(number: int) -> MetricStory:
    """Return the story of a metric; beyond the list they come again, with a number."""
    story = METRICS[number % len(METRICS)]
    turn = number // len(METRICS)
    return story._replace(name=f"{story.name} {turn + 1}") if turn else story

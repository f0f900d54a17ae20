"""What became of a batch, written down for people and for CI.

`junit` and `to_json` need nothing more; `markdown` and `html` need the extra ``report``. Each
gives text and writes no file.
"""

from amigo_async.report.junit import junit
from amigo_async.report.page import html
from amigo_async.report.records import RecordedError, from_json, to_json
from amigo_async.report.summary import markdown

__all__ = ["RecordedError", "from_json", "html", "junit", "markdown", "to_json"]

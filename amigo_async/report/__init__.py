"""Reports of a batch, for people and for CI.

`junit` and `to_json` need no extra; `markdown` and `html` need the extra ``report``. All of them
return text and write no file.
"""

from amigo_async.report.html import html
from amigo_async.report.json import RecordedError, from_json, to_json
from amigo_async.report.junit import junit
from amigo_async.report.markdown import markdown

__all__ = ["RecordedError", "from_json", "html", "junit", "markdown", "to_json"]

"""Reports of a batch, for people and for CI.

`junit` and `to_json` need no extra; `markdown` and `html` need the extra ``report``. All of them
return text and write no file. For a thousand sets they take seconds, so call them in a thread
where an event loop runs: ``await asyncio.to_thread(html, result)``.
"""

from amigo_async.report.html import html
from amigo_async.report.json import RecordedError, from_json, to_json
from amigo_async.report.junit import junit
from amigo_async.report.markdown import markdown

__all__ = ["RecordedError", "from_json", "html", "junit", "markdown", "to_json"]

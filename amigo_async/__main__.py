"""``python -m amigo_async`` runs the command without its script on the path."""

import sys

from amigo_async.cli import main

sys.exit(main())

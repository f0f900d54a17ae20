"""Guides: how things work, and what to do when they do not.

![A report of six sets, two of which failed](report.png)

.. include:: limits.md
.. include:: starting.md
.. include:: chance.md
.. include:: ci.md
.. include:: services.md
.. include:: fleets.md
.. include:: testing.md
.. include:: troubleshooting.md
.. include:: from_amigo_sdk.md
"""

"""The history of the database's schema, for Alembic; ``db.migrate`` runs it.

A revision is written by hand, imports nothing of ours, and has a downgrade. What to do beside it: change
``db/schema.py`` (a test compares the two) and keep a database of the old revision in ``tests/db/data``.
"""

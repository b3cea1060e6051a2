"""Commands the ``tinyvoice`` command line finds through the group ``tinyvoice.commands``."""

"""``python -m tinyvoice`` is the program ``tinyvoice``."""

from tinyvoice.cli.app import main

if __name__ == "__main__":
    main()

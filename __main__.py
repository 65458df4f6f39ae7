"""``python -m dlzoo`` is the ``dlzoo`` command."""

from dlzoo.cli.main import main

if __name__ == "__main__":
    main()

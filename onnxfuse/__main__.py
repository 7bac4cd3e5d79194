"""``python -m onnxfuse`` is the command line."""

from onnxfuse.cli.app import main

if __name__ == "__main__":
    main()

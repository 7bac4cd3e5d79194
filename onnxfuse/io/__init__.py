"""Reading and writing: files that are whole or not there, ONNX with its weights in place, folders and their records."""

"""Models without torch: graphs in the format ONNX, and archives of them."""

"""A net as an ONNX model, in float and in int8: how it is quantised, imitated in training, and run in ONNX Runtime."""

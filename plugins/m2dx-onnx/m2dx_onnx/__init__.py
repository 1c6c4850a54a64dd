"""`m2dx export RUN FOLDER --onnx`: an encoder or a classifier as one ONNX file, from samples to features."""

"""Small ONNX models on this machine's processor: embedders and classifiers.

onnxruntime and numpy are an extra (`cascaded[onnx]`), imported by the first text and by nobody
else: the daemon of who does not use them neither starts slower nor grows. A model works on a
thread of its own, off the event loop; what cannot be worked out in time is `Unavailable`, and
whoever asked goes on without.
"""

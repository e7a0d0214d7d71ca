"""SqueezeNet on PaddlePaddle, starting from the authors' original Caffe weights.

Importing this package imports nothing else: Paddle takes seconds to load, and much of what the
package does (reading a Caffe file, checking a list, decoding images) works without it.
"""

__version__ = "0.1.0"

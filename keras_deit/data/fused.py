"""Operations on large images in one pass: XLA makes one loop of many.

What is compiled must give the bytes that it gives uncompiled. Whole numbers, single
sums and comparisons do. Not so: a product in a sum, unless `rounded` keeps them apart;
a sum with two constants, which become one; a division by a constant; sines. These stay
outside, or have their constants handed in.
"""

import functools

import tensorflow as tf

LARGE = 128 * 128  # pixels, from which on it pays to wait a second for the compiler
_UNREACHED = 2.0**100


def fused(function):
    """Has an operation compiled for large images, where there is XLA.

    Args:
        function: Of an image, shape (H, W, 3), H and W known, and of tensors. It is
            compiled once for each size of images.

    Returns:
        The function; small images, it treats as before.
    """
    in_one_piece = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def chosen(image, *arguments):
        is_large = image.shape[0] * image.shape[1] >= LARGE
        if not (is_large and has_xla()):
            return function(image, *arguments)
        # As tensors: for each Python number it would be compiled anew.
        return in_one_piece(image, *map(tf.convert_to_tensor, arguments))

    return chosen


@functools.cache
def has_xla() -> bool:
    """Tells whether this TensorFlow can compile for the CPU.

    This process is asked, not a host that makes the input for it.
    """
    try:
        with tf.init_scope(), tf.device("CPU:0"):
            tf.function(tf.negative, jit_compile=True)(tf.constant(1.0))
    except (tf.errors.OpError, ValueError):
        return False
    return True


def rounded(product):
    """Keeps a product from being joined with a sum.

    Compilers round `a * b + c` once where the processor can; PIL rounds twice. No
    compiler sees that the bound between them is never reached.
    """
    return tf.minimum(product, tf.constant(_UNREACHED, product.dtype))

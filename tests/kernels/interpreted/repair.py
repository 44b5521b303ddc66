"""Triton's interpreter, made to do what a GPU does.

bfloat16: its values are bit patterns there, as NumPy has no such type, and Triton 3.6 to 3.9 multiply the patterns in
``tl.dot`` and in all arithmetic, and round to bfloat16 by cutting off (triton#11584). Here ``tl.dot`` and casts are
right. Other arithmetic is refused: kernels compute in float32.

NaN: the maximum of NaN and a number is the number on a GPU, and NaN in the interpreters of Triton 3.6 to 3.8.

``range`` of a run-time number: fails in Triton 3.6 with NumPy from 2.4 on.
"""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def decoded(patterns: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bit patterns (uint16); exact."""
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def encoded(values: np.ndarray) -> np.ndarray:
    """Return the bfloat16 bit patterns (uint16) nearest to float32 values, ties to even."""
    values = np.asarray(values, dtype=np.float32)
    bits = np.ascontiguousarray(values).view(np.uint32).reshape(values.shape)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _is_bf16(handle: TensorHandle) -> bool:
    return handle.dtype.scalar == tl.bfloat16


def _as_float32(handle: TensorHandle) -> TensorHandle:
    return TensorHandle(decoded(handle.data), tl.float32) if _is_bf16(handle) else handle


def repair() -> None:
    """Change Triton's interpreter in this process; once is enough and more does no harm."""
    if hasattr(InterpreterBuilder, "_repaired"):
        return
    dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl
    binary, unary = InterpreterBuilder.binary_op, InterpreterBuilder.unary_op

    def create_dot(self, a, b, *rest):
        return dot(self, _as_float32(a), _as_float32(b), *rest)

    def cast_impl(self, source, to):
        values = _as_float32(source)
        if to.scalar == tl.bfloat16:
            if _is_bf16(source):
                return TensorHandle(source.data, tl.bfloat16)
            return TensorHandle(encoded(values.data.astype(np.float32)), tl.bfloat16)
        if _is_bf16(source) and to.scalar == tl.float32:
            return values
        return cast(self, values, to)

    def binary_op(self, left, right, operation):
        _refuse(left, right)
        return binary(self, left, right, operation)

    def unary_op(self, argument, operation):
        _refuse(argument)
        return unary(self, argument, operation)

    InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl = create_dot, cast_impl
    InterpreterBuilder.binary_op, InterpreterBuilder.unary_op = binary_op, unary_op
    InterpreterBuilder.create_maxnumf = lambda self, left, right: self.binary_op(left, right, np.fmax)
    InterpreterBuilder.create_minnumf = lambda self, left, right: self.binary_op(left, right, np.fmin)

    patch_tensor = interpreter._patch_lang_tensor

    def _patch_lang_tensor(tensor, *rest):
        patch_tensor(tensor, *rest)
        tensor.__index__ = lambda self: int(self.handle.data.item())

    interpreter._patch_lang_tensor = _patch_lang_tensor
    InterpreterBuilder._repaired = True


def _refuse(*handles: TensorHandle) -> None:
    if any(_is_bf16(handle) for handle in handles):
        raise TypeError("the kernel computes in bfloat16; make it float32 first: .to(tl.float32) right after the load")

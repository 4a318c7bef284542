"""
Plain data with numpy arrays inside, to bytes and back: what checkpoints and records are written in.

MessagePack with one extension: an array is its dtype, its shape and its bytes. Decoded arrays are read-only.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from wva_core.errors import ParameterError

__all__ = ["decode", "encode"]

_ARRAY = 1


def _enc_hook(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return value.tolist()
        head = msgspec.msgpack.encode((value.dtype.str, value.shape))
        return msgspec.msgpack.Ext(_ARRAY, len(head).to_bytes(2, "big") + head + np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    raise NotImplementedError(f"{type(value).__name__} is not plain data")


def _ext_hook(code: int, data: memoryview) -> Any:
    if code != _ARRAY:
        raise ParameterError("is not an extension of this format", object="codec", key="extension", value=code)
    size = int.from_bytes(data[:2], "big")
    dtype, shape = msgspec.msgpack.decode(data[2 : 2 + size])
    array = np.frombuffer(bytes(data[2 + size :]), dtype=np.dtype(dtype)).reshape(shape)
    array.flags.writeable = False
    return array


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_decoder = msgspec.msgpack.Decoder(ext_hook=_ext_hook)


def encode(value: Any) -> bytes:
    """
    Bytes of plain data: numbers, text, lists, mappings and numpy arrays.

    Raises:
        ParameterError: something inside is not plain data.
    """
    try:
        return _encoder.encode(value)
    except (TypeError, NotImplementedError, OverflowError) as exc:
        raise ParameterError(
            f"cannot be written: {exc}", object="codec", remedy="keep numbers, text, lists, mappings and arrays only"
        ) from exc


def decode(data: bytes) -> Any:
    """
    What `encode` was given; tuples come back as lists.

    Raises:
        ParameterError: the bytes are cut short or were written by something else.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, ValueError, TypeError) as exc:
        raise ParameterError(f"cannot be read: {exc}", object="codec") from exc

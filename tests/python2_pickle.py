"""Pickles as Python 2 wrote them, which older weights and data sets are made of."""

from __future__ import annotations

import io
import pickle
import struct


class Python2Pickler(pickle._Pickler):
    """Writes every string as Python 2 wrote its str, which the published archive is made of."""

    def save_str(self, text: str | bytes) -> None:
        data = text.encode("latin1") if isinstance(text, str) else text
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch = {**pickle._Pickler.dispatch, str: save_str, bytes: save_str}  # noqa: RUF012


def python2_pickle(content: object) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")

"""Frames of videos that the tests write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from squeezenet_paddle.data.video import camera_frames, video_frames
from squeezenet_paddle.errors import InputError


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 frames, 10 a second, each brighter than the one before."""
    file = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for i in range(25):
        writer.write(np.full((48, 64, 3), 10 * i, "uint8"))
    writer.release()
    return file


def test_every_frame(film: Path) -> None:
    frames = list(video_frames(film, "frame"))
    assert [frame.number for frame in frames] == list(range(25))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 10 for i in range(25)])
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.mean() == pytest.approx(10 * frame.number, abs=4)


def test_the_first_frame_of_every_second(film: Path) -> None:
    assert [(f.number, round(f.seconds, 3)) for f in video_frames(film)] == [
        *((0, 0.0), (10, 1.0), (20, 2.0)),
    ]


def test_no_video(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match="`video` .*text.mp4: no frame of it can be read"):
        list(video_frames(tmp_path / "text.mp4"))
    with pytest.raises(InputError, match="`video` .*none.mp4: no such file"):
        list(video_frames(tmp_path / "none.mp4"))
    with pytest.raises(InputError, match="`camera` 99: there is no such camera"):
        list(camera_frames(99))
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(64))
    capfd.readouterr()
    with pytest.raises(InputError, match="`video` .*cut.mp4: no frame of it can be read"):
        list(video_frames(tmp_path / "cut.mp4"))
    assert capfd.readouterr() == ("", "")  # FFmpeg says "moov atom not found"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_a_still_image_is_no_video(tmp_path: Path, suffix: str) -> None:
    """It was classified, as a video of one frame."""
    cv2.imwrite(str(tmp_path / f"image{suffix}"), np.full((48, 64, 3), 9, "uint8"))
    with pytest.raises(InputError, match=r"`video` .* still \w+ image; `image` classifies it"):
        list(video_frames(tmp_path / f"image{suffix}"))


def test_an_animation_is_a_video(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 24), (40 * i, 0, 0)) for i in range(4)]
    options = {"save_all": True, "append_images": frames[1:], "duration": 500}
    frames[0].save(tmp_path / "animation.gif", **options)
    assert len(list(video_frames(tmp_path / "animation.gif", "frame"))) == 4

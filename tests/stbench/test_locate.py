"""Where data are looked for: the option first, then the environment, then the user's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from stbench.errors import UserError
from stbench.system import locate


@pytest.fixture
def no_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STBENCH_DATA", raising=False)
    monkeypatch.setattr(locate, "user_data_folder", lambda: tmp_path / "absent")


@pytest.mark.usefixtures("no_user_folder")
def test_the_option_wins_over_the_environment_and_that_over_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, named, usual = (tmp_path / name for name in ("option", "named", "usual"))
    for folder in (option, named, usual):
        folder.mkdir()
    assert locate.data_root() is None
    monkeypatch.setattr(locate, "user_data_folder", lambda: usual)
    assert locate.data_root() == usual
    monkeypatch.setenv("STBENCH_DATA", str(named))
    assert locate.data_root() == named
    assert locate.data_root(option) == option


@pytest.mark.usefixtures("no_user_folder")
def test_a_named_place_that_is_not_there_is_an_error_not_a_fallback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="--data"):
        locate.data_root(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"STBENCH_DATA names .* is not a folder"):
        locate.data_root()


def test_the_cache_is_named_by_the_environment_or_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    assert locate.cache_root() == tmp_path / "cache"
    monkeypatch.delenv("STBENCH_CACHE")
    assert locate.cache_root().name == "stbench"

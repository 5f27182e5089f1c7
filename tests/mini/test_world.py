import math
from pathlib import Path

import pytest

from vlinstruct.errors import ResourceError
from vlinstruct.mini import Split, fonts
from vlinstruct.mini.draw import draw
from vlinstruct.mini.fonts import FONTS, load_font
from vlinstruct.mini.questions import is_label
from vlinstruct.mini.scene import Scene
from vlinstruct.mini.words import MAX_LENGTH, split_of
from vlinstruct.mini.world import sample_page, sample_scene

SEEDS = range(60)


def test_a_scene_is_a_function_of_its_seed() -> None:
    assert [sample_scene(seed) for seed in SEEDS] == [sample_scene(seed) for seed in SEEDS]
    assert sample_scene(0) != sample_scene(1)
    assert sample_scene(0, split="dev", fonts=("pillow",)) != sample_scene(0, split="test", fonts=("pillow",))


def test_a_picture_is_a_function_of_its_scene() -> None:
    scene = sample_scene(0, fonts=("pillow",))
    assert draw(scene).tobytes() == draw(scene).tobytes()


@pytest.mark.parametrize("size", [(120, 120), (400, 300), (90, 200)])
def test_pictures_have_the_size_asked_for(size: tuple[int, int]) -> None:
    assert all(draw(sample_scene(seed, fonts=("pillow",)), size).size == size for seed in range(6))


@pytest.mark.parametrize("split", FONTS)
def test_every_part_shows_its_own_words_in_its_own_fonts(split: Split) -> None:
    prints = [text for seed in range(500) for text in sample_scene(seed, split=split).prints]
    assert prints
    assert {split_of(text.text) for text in prints if not is_label(text.text)} == {split}
    assert {text.font for text in prints} <= set(FONTS[split])


def test_no_font_belongs_to_two_parts() -> None:
    fonts = [font for own in FONTS.values() for font in own]
    assert len(fonts) == len(set(fonts))


def test_the_test_parts_fonts_ship() -> None:
    shipped = {path.name for path in (Path(fonts.__file__).parent / "test_fonts").glob("*.?tf")}
    assert shipped == set(FONTS["test"])


def test_printed_texts_have_2_to_8_letters_or_digits() -> None:
    texts = [text.text for seed in range(300) for text in sample_scene(seed).prints]
    assert all(2 <= len(text) <= MAX_LENGTH and text.isascii() and text.isalnum() for text in texts)


def test_things_lie_inside_the_picture_and_apart() -> None:
    for seed in SEEDS:
        things = sample_scene(seed).things
        assert len(things) <= 5
        assert all(t.size / 2 <= t.x <= 1 - t.size / 2 and t.size / 2 <= t.y <= 1 - t.size / 2 for t in things)
        pairs = ((a, b) for a in things for b in things if a is not b)
        assert all(math.dist((a.x, a.y), (b.x, b.y)) > (a.size + b.size) / 2 for a, b in pairs)


def test_noise_blur_and_jpeg_change_the_picture() -> None:
    plain = Scene(background="white", background_rgb=(240, 240, 240), things=sample_scene(3).things)
    noisy = Scene(background="white", background_rgb=(240, 240, 240), things=plain.things, noise=8.0, jpeg_quality=50)
    assert draw(plain).tobytes() != draw(noisy).tobytes()


def test_a_missing_font_is_named_with_its_remedy() -> None:
    with pytest.raises(ResourceError, match=r"font Nowhere\.ttf not found\. Install the open fonts: apt-get install"):
        load_font("Nowhere.ttf", 20)


def test_pages_are_full_of_training_words() -> None:
    pages = [sample_page(seed) for seed in range(100)]
    prints = [text for page in pages for text in page.prints]
    assert len(prints) > 250
    assert {split_of(text.text) for text in prints} == {"train"}
    assert pages == [sample_page(seed) for seed in range(100)]


def _has_things_on_both_sides(scene: Scene) -> bool:
    return bool(scene.prints) and len({thing.y > scene.prints[0].y for thing in scene.things}) == 2


def test_things_above_and_below_a_text_at_once_are_held_out() -> None:
    assert not any(_has_things_on_both_sides(sample_scene(seed)) for seed in range(500))
    for split in ("dev", "test"):
        assert sum(_has_things_on_both_sides(sample_scene(seed, split=split)) for seed in range(500)) > 5

"""Images through libmtmd: tiny projectors of three kinds beside tiny models, in real contexts."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import InputInvalid, LoadFailed
from runtime.runner import vision
from runtime.runner.encoded import EncodedImages
from runtime.runner.library import Batch, Context, Log, Model
from runtime.runner.settings import RunnerSettings
from runtime.runner.vision import Image, Projector, Text
from tests.tiny_gguf import write_tiny_gguf
from tests.tiny_projector import image_bytes, write_tiny_mrope_gguf, write_tiny_projector

KINDS = ("mlp", "gemma3", "qwen2vl")
STEP_TOKENS = 32
RED, BLUE = image_bytes((220, 10, 10)), image_bytes((10, 10, 220))


class Pair:
    """A model, and a projector that goes with it."""

    def __init__(self, model: Model, projector: Projector, settings: RunnerSettings) -> None:
        self.model, self.projector, self.settings = model, projector, settings

    def context(self) -> Context:
        return Context(
            self.model, cells=1024, sequences=4, step_tokens=STEP_TOKENS, threads=1, settings=self.settings
        )  # fmt: skip

    def image(self, data: bytes) -> Image:
        return next(part for part in self.projector.read("[img-0]", [data]) if isinstance(part, Image))

    def logits_after(self, data: bytes, *, sequence: int = 0, step_tokens: int = STEP_TOKENS) -> np.ndarray:
        """Of a text that follows some text and the image."""
        context, batch, image = self.context(), Batch(STEP_TOKENS), self.image(data)
        batch.add_slice([40, 41, 42], 0, sequence, wants_last=False)
        assert context.decode(batch) == 0
        embeddings = self.projector.encode(image)
        code, position = self.projector.decode(
            context, image, embeddings, position=3, sequence=sequence, step_tokens=step_tokens
        )
        assert (code, position) == (0, 3 + image.positions)
        batch.clear()
        last = batch.add_slice([50, 51], position, sequence, wants_last=True)
        assert context.decode(batch) == 0
        logits = context.logits(last).copy()
        context.close()
        return logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vision")


@pytest.fixture(scope="module")
def load_model() -> Callable[[Path], tuple[Model, RunnerSettings]]:
    log = Log()

    def load(path: Path) -> tuple[Model, RunnerSettings]:
        settings = RunnerSettings(path=str(path), socket="", context_length=512, parallel=2, num_thread=1)
        return Model(settings, log, lambda _: None), settings

    return load


@pytest.fixture(scope="module")
def pairs(folder, load_model) -> dict[str, Pair]:
    plain = load_model(write_tiny_gguf(folder / "plain.gguf"))
    mrope = load_model(write_tiny_mrope_gguf(folder / "mrope.gguf"))
    made = {}
    for kind in KINDS:
        path = write_tiny_projector(folder / f"{kind}.gguf", kind=kind)
        model, settings = mrope if kind == "qwen2vl" else plain
        made[kind] = Pair(model, Projector(str(path), model, threads=1, use_gpu=False), settings)
    return made


@pytest.fixture(params=KINDS)
def pair(request, pairs) -> Pair:
    return pairs[request.param]


@pytest.fixture
def plain(pairs) -> Pair:
    return pairs["mlp"]


@pytest.mark.parametrize(
    ("kind", "cells", "positions", "at_once"), [("mlp", 16, 16, 0), ("gemma3", 4, 4, 4), ("qwen2vl", 12, 4, 0)]
)
def test_an_image_says_what_it_takes_before_it_is_encoded(pairs, kind, cells, positions, at_once):
    image = pairs[kind].image(RED)

    assert (image.cells, image.positions, image.needs_all_at_once) == (cells, positions, at_once > 0)
    assert pairs[kind].projector.cells_at_once == at_once


def test_embeddings_depend_on_the_image_alone(pair):
    first = pair.projector.encode(pair.image(RED), caller="first")
    second = pair.projector.encode(pair.image(RED), caller="second")
    other = pair.projector.encode(pair.image(BLUE))

    assert first is not second
    np.testing.assert_array_equal(first, second)
    assert abs(first - other).max() > 0.01
    assert first.shape == (pair.image(RED).cells, 64)


def test_an_answer_depends_on_what_the_image_shows(pair):
    red = pair.logits_after(RED)

    np.testing.assert_array_equal(pair.logits_after(RED), red)
    assert abs(pair.logits_after(BLUE) - red).max() > 0.01


def test_an_image_is_the_same_in_any_sequence(pair):
    np.testing.assert_array_equal(pair.logits_after(RED, sequence=3), pair.logits_after(RED))


@pytest.mark.parametrize("kind", ["mlp", "qwen2vl"])
def test_an_image_larger_than_a_step_takes_several(pairs, kind):
    in_one, in_several = (pairs[kind].logits_after(RED, step_tokens=tokens) for tokens in (STEP_TOKENS, 5))

    np.testing.assert_allclose(in_one, in_several, atol=0.05)


def test_an_image_whose_cells_see_each_other_is_refused_where_a_step_cannot_hold_it(pairs):
    with pytest.raises(InputInvalid, match="takes 4 cells at once, a step has 3"):
        pairs["gemma3"].logits_after(RED, step_tokens=3)


def test_text_is_causal_again_after_such_an_image(pairs):
    pair = pairs["gemma3"]
    context, image = pair.context(), pair.image(RED)
    embeddings = pair.projector.encode(image)

    pair.projector.decode(context, image, embeddings, position=0, sequence=0, step_tokens=STEP_TOKENS)

    assert context.is_causal


def test_an_image_without_room_in_the_cache_is_reported(plain):
    context = Context(
        plain.model, cells=256, sequences=1, step_tokens=STEP_TOKENS, threads=1, settings=plain.settings
    )  # fmt: skip
    image = plain.image(RED)
    embeddings = plain.projector.encode(image)

    codes, position = [], 0
    while len(codes) < 20 and (not codes or codes[-1] == 0):
        code, position = plain.projector.decode(
            context, image, embeddings, position=position, sequence=0, step_tokens=STEP_TOKENS
        )
        codes.append(code)

    assert codes == [0] * 16 + [1]
    assert position == 256


def test_a_photograph_is_scaled_down_to_the_cells_that_it_may_take(pairs, folder):
    photograph = image_bytes(size=(1600, 1200), file_format="JPEG")
    model = pairs["qwen2vl"].model
    whole = pairs["qwen2vl"].image(photograph)

    projector = Projector(str(folder / "qwen2vl.gguf"), model, threads=1, use_gpu=False, most_cells=500)
    parts = projector.read("[img-0] [img-1]", [photograph, RED])

    cells = [part.cells for part in parts if isinstance(part, Image)]
    assert whole.cells > 2000
    assert 350 < cells[0] <= 500
    assert cells[1] == 12


def test_a_large_image_may_become_several_that_differ(plain, tmp_path):
    path = write_tiny_projector(tmp_path / "tiles.gguf", grids=(112, 112, 112, 56))
    projector = Projector(str(path), plain.model, threads=1, use_gpu=False)

    first, second = (projector.read("a[img-0]b", [image_bytes(size=(112, 112))]) for _ in range(2))

    tiles = [[part for part in parts if isinstance(part, Image)] for parts in (first, second)]
    assert [len(images) for images in tiles] == [5, 5]  # the whole, and four quarters
    assert len({image.digest for image in tiles[0]}) == 5
    assert [image.digest for image in tiles[0]] == [image.digest for image in tiles[1]]
    encoded = [projector.encode(image) for image in tiles[0]]
    assert all(abs(one - other).max() > 0.01 for one, other in combinations(encoded, 2))


def test_an_image_of_fixed_cells_is_left_as_it_is(pairs, folder):
    model = pairs["gemma3"].model
    projector = Projector(str(folder / "gemma3.gguf"), model, threads=1, use_gpu=False, most_cells=3)
    image = next(part for part in projector.read("[img-0]", [RED]) if isinstance(part, Image))

    assert (image.cells, projector.cells_at_once) == (4, 4)
    assert image.digest == pairs["gemma3"].image(RED).digest


@pytest.mark.parametrize(
    "prompt",
    ["", "hello world", "<|im_start|>user\nhi<|im_end|>\n", "<__media__>", "[img-0] [img-1]", "a\0b", "é🚢\ud800", " "],
)
def test_text_without_images_is_what_the_vocabulary_makes_of_it(plain, prompt):
    parts = plain.projector.read(prompt, [])

    tokens = plain.model.vocabulary.tokenize(prompt, add_special=False)
    assert parts == ([Text(tokens)] if tokens else [])


def test_images_stand_where_their_markers_are(plain):
    parts = plain.projector.read("one [img-1]two <__media__> [img-2][img-0]", [RED, BLUE, RED])

    texts = [part.tokens for part in parts if isinstance(part, Text)]
    digests = [part.digest for part in parts if isinstance(part, Image)]
    assert [isinstance(part, Image) for part in parts] == [False, True, False, True, True]
    assert texts == [
        plain.model.vocabulary.tokenize(text, add_special=False) for text in ("one ", "two <__media__> ")
    ]  # fmt: skip
    assert digests[0] != digests[1] == digests[2]


@pytest.mark.parametrize("around", ["mlp", "gemma3", "qwen2vl"])
def test_tokens_that_a_model_wants_around_its_images_are_put_there(pairs, around):
    marks = {"mlp": "", "gemma3": "<start_of_image>", "qwen2vl": "<|vision_start|>"}
    first = pairs[around].projector.read("look: [img-0]", [RED])[0]

    spelt = pairs[around].model.vocabulary.text(first.tokens)
    assert spelt == "look: " + marks[around]


@pytest.mark.parametrize("prompt", ["no marker", "[img-0][img-0]", "[img-00]", "[img-0] [img-1] [img-1]", "[img-1]"])
def test_each_image_needs_one_marker(plain, prompt):
    with pytest.raises(InputInvalid, match="one marker"):
        plain.projector.read(prompt, [RED] * (2 if prompt.count("1") > 1 else 1))


def test_a_marker_of_no_image_is_text(plain):
    parts = plain.projector.read("[img-0] [img-1] [img-99999999999999999999]", [RED])

    assert [type(part) for part in parts] == [Image, Text]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"ID3\x04" + bytes(100), RED[:50]], ids=len)
def test_what_is_no_image_is_refused(plain, data):
    with pytest.raises(InputInvalid, match="image"):
        plain.projector.read("[img-0]", [data])


def test_too_many_images_are_refused(plain):
    count = vision.MOST_IMAGES + 1

    with pytest.raises(InputInvalid, match="may have 32 images"):
        plain.projector.read("".join(f"[img-{at}]" for at in range(count)), [RED] * count)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (13, 2600), (4000, 20), (57, 55), (900, 700)])
def test_an_image_of_any_shape_can_be_used(pair, size):
    image = pair.image(image_bytes(size=size))

    assert image.cells > 0
    assert image.positions > 0
    if image.cells <= 400:
        assert pair.projector.encode(image).shape == (image.cells, 64)


def test_changed_files_do_not_end_the_process(pairs):
    chance, projector = random.Random(7), pairs["qwen2vl"].projector

    for _ in range(60):
        data = bytearray(RED)
        for _ in range(chance.choice((1, 4))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            for part in projector.read("[img-0]", [bytes(data)]):
                if isinstance(part, Image) and part.cells < 200:
                    projector.encode(part)
        except InputInvalid:
            continue


def test_one_thread_encodes_while_another_decodes(plain):
    """What each of them computes is what it computes alone."""
    expected = [plain.projector.encode(plain.image(data), caller="before") for data in (RED, BLUE)]
    context, batch = plain.context(), Batch(STEP_TOKENS)

    def logits() -> np.ndarray:
        batch.clear()
        last = batch.add_slice(range(40, 40 + STEP_TOKENS), 0, 0, wants_last=True)
        assert context.decode(batch) == 0
        assert context.drop(0, 0)
        return context.logits(last).copy()

    def encode(turn: int) -> np.ndarray:
        return plain.projector.encode(plain.image((RED, BLUE)[turn % 2]), caller=f"turn {turn}")

    alone = logits()
    with ThreadPoolExecutor(2) as threads:
        encoded = threads.map(encode, range(300))
        together = [logits() for _ in range(300)]

    for turn, embeddings in enumerate(encoded):
        np.testing.assert_array_equal(embeddings, expected[turn % 2])
    np.testing.assert_array_equal(together, [alone] * 300)


def test_an_image_is_encoded_once_for_each_caller(plain):
    first, again, others = (plain.projector.encode(plain.image(RED), caller=who) for who in ("ann", "ann", "bob"))

    assert again is first
    assert others is not first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1


def test_a_closed_image_can_neither_be_encoded_nor_decoded(plain):
    image = plain.image(BLUE)
    embeddings = plain.projector.encode(image, caller="closing")
    image.close()
    image.close()

    with pytest.raises(InputInvalid):
        plain.projector.encode(image, caller="another")
    with pytest.raises(InputInvalid):
        plain.projector.decode(plain.context(), image, embeddings, position=0, sequence=0, step_tokens=8)
    assert image.cells == 16


def test_an_image_that_is_closed_while_somebody_reads_it_stays_until_then(plain):
    image = plain.image(BLUE)

    with image.held():
        image.close()
        with pytest.raises(InputInvalid):
            plain.projector.encode(image, caller="too late")
        assert image._free.alive

    assert not image._free.alive


def test_embeddings_of_another_image_size_are_refused(plain):
    with pytest.raises(InputInvalid, match="not the embeddings"):
        plain.projector.decode(
            plain.context(), plain.image(RED), np.zeros((15, 64), np.float32), position=0, sequence=0, step_tokens=8
        )


def test_the_least_recently_used_embeddings_are_forgotten_first():
    kept = EncodedImages(most_bytes=3 * 4096)
    for name in "abc":
        kept.put(name, np.zeros(1024, np.float32))
    kept.get("a")
    kept.put("d", np.zeros(1024, np.float32))
    kept.put("too large", np.zeros(4096, np.float32))

    assert [name for name in ("a", "b", "c", "d", "too large") if kept.get(name) is not None] == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 32}, r"mismatch between text model \(n_embd = 64\) and mmproj \(n_embd = 32\)"),
        ({"sees": False, "hears": True}, "reads sound only"),
        ({"sees": False}, "reads no images"),
        ({"kind": "nonsense"}, "unknown projector type: nonsense"),
        ({"leave_out": ("v.blk.0.ffn_up.weight",)}, "^unable to find tensor v.blk.0.ffn_up.weight$"),
    ],
)
def test_a_projector_that_does_not_fit_is_refused(plain, tmp_path, options, words):
    path = write_tiny_projector(tmp_path / "wrong.gguf", **options)

    with pytest.raises(LoadFailed, match=words):
        Projector(str(path), plain.model, threads=1, use_gpu=False)


@pytest.mark.parametrize("data", [None, b"", b"GGUFxxxx" * 10], ids=["missing", "empty", "nonsense"])
def test_a_file_that_is_no_projector_is_refused(plain, tmp_path, data):
    path = tmp_path / "no.gguf"
    if data is not None:
        path.write_bytes(data)

    with pytest.raises(LoadFailed, match="failed to load CLIP model") as refusal:
        Projector(str(path), plain.model, threads=1, use_gpu=False)

    assert str(tmp_path) not in str(refusal.value)


def test_a_closed_projector_encodes_no_more(plain, folder):
    projector = Projector(str(folder / "mlp.gguf"), plain.model, threads=1, use_gpu=False)
    projector.close()
    projector.close()

    with pytest.raises(InputInvalid):
        projector.encode(plain.image(RED))

"""Model.classify gives what the pipelines for texts and images give, without them."""

import json
import shutil

import numpy as np
import pytest
import transformers
from PIL import Image

import onnxfuse
from onnxfuse.errors import ModelError, UsageError
from tests.inference.conftest import SENTENCES

LABELS = {0: "good", 1: "bad", 2: "so so"}
PAIRS = list(zip(SENTENCES[:6], SENTENCES[6:12], strict=True))


def near(got, wanted):
    """Whether labels are equal, and scores up to rounding."""
    assert [each["label"] for each in got] == [each["label"] for each in wanted]
    assert np.abs(np.subtract([each["score"] for each in got], [each["score"] for each in wanted])).max() < 1e-5
    return True


@pytest.fixture(scope="module")
def texts(made):
    return made("bert", "BertForSequenceClassification", id2label=LABELS)


def pipeline(source, task="text-classification", **options):
    return transformers.pipeline(task, model=str(source), device="cpu", **options)


@pytest.mark.parametrize("kind", [None, "single_label_classification", "multi_label_classification", "regression"])
def test_texts_have_the_pipelines_labels_and_scores(texts, tmp_path, kind):
    source, folder = (shutil.copytree(place, tmp_path / name) for name, place in zip(("checkpoint", "made"), texts, strict=True))
    for place in (source, folder):
        fields = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(fields | {"problem_type": kind}))
    model, original = onnxfuse.load(folder), pipeline(source)
    for top in (None, 1, 2):
        wanted = original(SENTENCES[:20], top_k=top, truncation=True)
        got = model.classify(SENTENCES[:20], top=top, batch=7)
        assert all(near(*each) for each in zip(got, wanted, strict=True))
    assert near(model.classify(SENTENCES[0]), original(SENTENCES[0], truncation=True))
    assert model.classify([]) == []


def test_pairs_are_told_apart_from_texts(texts):
    model, original = onnxfuse.load(texts[1]), pipeline(texts[0])
    wanted = original([{"text": a, "text_pair": b} for a, b in PAIRS], top_k=None, truncation=True)
    assert all(near(*each) for each in zip(model.classify(PAIRS, top=None), wanted, strict=True))
    assert near(model.classify(PAIRS[0], top=None), wanted[0])


def test_a_single_label_is_a_probability_by_itself(made, tmp_path):
    source, folder = made("bert", "BertForSequenceClassification", num_labels=1)
    folder = shutil.copytree(folder, tmp_path / "made")
    wanted = pipeline(source)(SENTENCES[:9], truncation=True)
    assert wanted[0]["label"] == "LABEL_0" and 0 < wanted[0]["score"] < 1
    for kind in (None, "single_label_classification"):  # which transformers 5 refuses for one label, and 4 wrote
        fields = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(fields | {"problem_type": kind}))
        got = onnxfuse.load(folder).classify(SENTENCES[:9])
        assert all(near(each, [theirs]) for each, theirs in zip(got, wanted, strict=True))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"inputs": ("a", "b", "c")}, "text 1 has 3 texts, wanted one, or a pair"),
        ({"inputs": [("a", None)]}, "text 1, its second, is NoneType"),
        ({"inputs": 3}, "int given, wanted a text or a pair of texts, or a list of these"),
        ({"inputs": "a", "top": 0}, "top is 0, wanted how many labels"),
    ],
)
def test_what_has_no_class_is_refused(texts, given, said):
    with pytest.raises(UsageError, match=said):
        onnxfuse.load(texts[1]).classify(**given)


def test_other_uses_of_a_classifier_name_what_they_need(texts):
    with pytest.raises(UsageError, match="was exported for text-classification; fill needs logits of a model of fill-mask"):
        onnxfuse.load(texts[1]).fill("a [MASK]")
    with pytest.raises(UsageError, match="answer needs start_logits, end_logits of a model of question-answering"):
        onnxfuse.load(texts[1]).answer("a", "b")


def test_a_problem_type_that_is_none_is_named(texts, tmp_path):
    folder = shutil.copytree(texts[1], tmp_path / "odd")
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"problem_type": "guess"}))
    with pytest.raises(ModelError, match=r"'guess' as problem_type, wanted one of regression"):
        onnxfuse.load(folder).classify("a")


# Images ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images(made):
    return made("vit", "ViTForImageClassification", num_labels=5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of several kinds and sizes: one lies on its side, one is grey, one lets through what is behind."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)

    def noise(*shape):
        return Image.fromarray(rng.integers(0, 256, (6, 6, *shape[2:]), dtype=np.uint8)).resize(shape[1::-1])

    turned = Image.Exif()
    turned[0x0112] = 6
    noise(50, 70, 3).save(folder / "a.png")
    noise(33, 20, 3).save(folder / "b.jpg", exif=turned)
    noise(41, 41).save(folder / "c.png")
    noise(80, 30, 4).save(folder / "d.png")
    noise(32, 32, 3).save(folder / "e.webp", lossless=True)
    return sorted(folder.iterdir())


def test_images_have_the_pipelines_labels_and_scores(images, pictures):
    model = onnxfuse.load(images[1])
    original = pipeline(images[0], "image-classification", image_processor=processor(images[0]))
    wanted = original([str(path) for path in pictures], top_k=5)
    for got in (
        model.classify(pictures, top=5),
        model.classify([str(path) for path in pictures], top=None, batch=2),
        model.classify([Image.open(path) for path in pictures], top=None),
    ):
        assert all(near(*each) for each in zip(got, wanted, strict=True))
    assert near(model.classify(pictures[1]), wanted[1][:1])
    assert near(model.classify(np.asarray(Image.open(pictures[0])), top=None), wanted[0])
    assert near(model.classify([np.asarray(Image.open(pictures[2]))], top=None)[0], wanted[2])
    assert model.classify([]) == []


def processor(folder):
    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def pixels(folder, **fields):
    (folder / "preprocessor_config.json").write_text(json.dumps(fields))
    return onnxfuse.load(folder)._serving.images


@pytest.mark.parametrize(
    "said",
    [
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3},
        {
            "feature_extractor_type": "ViTFeatureExtractor",
            "size": 32,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
        },
        {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
        {"image_processor_type": "CLIPImageProcessor", "size": 33, "crop_size": 32},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 15}, "crop_size": 32, "do_normalize": False},
        {"image_processor_type": "BitImageProcessor", "do_resize": False, "crop_size": {"height": 32, "width": 32}},
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 37, "width": 41},
            "crop_size": 32,
            "rescale_factor": 0.01,
        },
        {"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}, "do_rescale": False},
    ],
)
def test_arrays_are_those_of_the_image_processor_to_the_bit(images, pictures, tmp_path, said):
    folder = shutil.copytree(images[1], tmp_path / "made")
    ours = pixels(folder, **said)
    given = "image_processor_type" if "image_processor_type" in said else "feature_extractor_type"
    theirs = getattr(transformers, said[given].replace("FeatureExtractor", "ImageProcessor") + "Pil").from_pretrained(folder)
    for path in pictures:
        upright = transformers.image_utils.load_image(str(path))
        wanted = theirs(upright, return_tensors="np")["pixel_values"][0]
        got = ours.pixels(path)
        assert got.dtype == np.float32 and np.array_equal(got, wanted), path.name


VIT = {"image_processor_type": "ViTImageProcessor"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image_processor_type": "OddImageProcessor"}, "is for 'OddImageProcessor', wanted a processor of ViT, DeiT"),
        ({}, "is for 'None'"),
        (VIT | {"size": {"height": 16, "width": 16}}, r"makes images of \[3, 16, 16\], the model takes \[3, 32, 32\]"),
        (VIT | {"size": {"height": 0, "width": 16}}, "wanted 1 to 8192 pixels"),
        (VIT | {"size": {"height": 1 << 40, "width": 16}}, "wanted 1 to 8192 pixels"),
        (VIT | {"size": {"longest_edge": 16}}, "as size, wanted a height and a width"),
        (VIT | {"size": "32"}, "as size, wanted a height and a width"),
        (VIT | {"resample": 9}, "has 9 as resample"),
        (VIT | {"image_mean": [0.5]}, "as image_mean, wanted 3 numbers"),
        (VIT | {"image_std": [0.5, 0, 0.5]}, "as image_std, wanted 3 numbers"),
        (VIT | {"rescale_factor": "x"}, "as rescale_factor, wanted 1 numbers"),
        (VIT | {"do_pad": True}, "asks for padding"),
    ],
)
def test_a_processor_that_is_odd_is_named(images, pictures, tmp_path, fields, said):
    folder = shutil.copytree(images[1], tmp_path / "made")
    with pytest.raises(ModelError, match=said) as error:
        pixels(folder, **fields).pixels(pictures[0])
    assert "\n" not in str(error.value)


def test_what_is_no_image_is_refused(images, tmp_path):
    model = onnxfuse.load(images[1])
    (tmp_path / "a.png").write_bytes(b"no image")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.tga")  # which Pillow reads
    for given, said in (
        (tmp_path / "none.png", "is not there"),
        (tmp_path / "a.png", "cannot be read as an image"),
        (tmp_path / "b.tga", "cannot be read as an image"),
        (3, "image 1 is int, wanted a file's path"),
        (np.zeros((4, 4, 3)), r"image 1 is float64\[4, 4, 3\], wanted bytes"),
        (np.zeros((4, 4, 2), np.uint8), r"image 1 is uint8\[4, 4, 2\], wanted bytes"),
    ):
        with pytest.raises(UsageError, match=said) as error:
            model.classify(given)
        assert "\n" not in str(error.value)


def test_the_processor_may_be_a_part_of_the_whole_models(images, pictures, tmp_path):
    folder = shutil.copytree(images[1], tmp_path / "made")
    said = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor", "image_processor": said}))
    assert onnxfuse.load(folder).classify(pictures) == onnxfuse.load(images[1]).classify(pictures)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": 3}))
    with pytest.raises(UsageError, match=r"has no preprocessor_config\.json"):
        onnxfuse.load(folder).classify(pictures)


def test_a_folder_without_a_processor_is_named(images, pictures, tmp_path):
    folder = shutil.copytree(images[1], tmp_path / "made")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"has no preprocessor_config\.json, which tells how images become arrays"):
        onnxfuse.load(folder).classify(pictures)

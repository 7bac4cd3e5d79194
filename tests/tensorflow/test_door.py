"""What lies outside a TensorFlow model that was named does not get into its export."""

import io
import shutil
import zipfile

import h5py
import numpy as np
import pytest

from onnxfuse.errors import ExportError
from onnxfuse.exporters import open_checkpoint
from onnxfuse.io.quiet import silent
from tests.tensorflow.conftest import keras_model

WEIGHTS = "model.weights.h5"


@pytest.fixture(scope="module")
def backbone():
    return keras_model("bert")


@pytest.fixture
def secret(tmp_path):
    """An HDF5 file outside, and what of it a data set may be made of."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file.create_dataset("a", data=np.ones(4, np.float32))
    return tmp_path / "secret.h5"


def spoil(file, secret, how):
    """Put into an HDF5 file what another file holds, under the name of its first data set of 128 numbers."""
    names = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.shape == (128,) else None)
    del file[names[0]]
    if how == "link":
        file[names[0]] = h5py.ExternalLink(str(secret), "a")
    elif how == "external":
        file.create_dataset(names[0], (128,), np.float32, external=[(str(secret), 0, 512)])
    else:
        layout = h5py.VirtualLayout((128,), np.float32)
        layout[:4] = h5py.VirtualSource(str(secret), "a", (4,))
        file.create_virtual_dataset(names[0], layout)


@pytest.mark.parametrize(
    ("how", "words"), [("link", "is a link to another file"), ("external", "points to another"), ("virtual", "points to another")]
)
def test_keras_weights_of_another_file(backbone, secret, tmp_path, how, words):
    path = tmp_path / "model.keras"
    with silent():
        backbone.save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as whole, zipfile.ZipFile(path, "w") as archive:
        for name in whole.namelist():
            content = io.BytesIO(whole.read(name))
            if name == WEIGHTS:
                with h5py.File(content, "r+") as file:
                    spoil(file, secret, how)
            archive.writestr(name, content.getvalue())
    with pytest.raises(ExportError, match=f"model.keras: .*{words}.*; refused"):
        open_checkpoint(path)


def test_a_presets_weights_of_another_file(backbone, secret, tmp_path):
    with silent():
        backbone.save_to_preset(str(tmp_path / "preset"))
    open_checkpoint(tmp_path / "preset")
    with h5py.File(tmp_path / "preset" / WEIGHTS, "r+") as file:
        spoil(file, secret, "external")
    with pytest.raises(ExportError, match=f"{WEIGHTS}: .* points to another file for its numbers; refused"):
        open_checkpoint(tmp_path / "preset")


def test_a_presets_files_that_are_links_out_of_it(backbone, tmp_path):
    with silent():
        backbone.save_to_preset(str(tmp_path / "preset"))
    shutil.move(tmp_path / "preset" / WEIGHTS, tmp_path / "elsewhere.h5")
    (tmp_path / "preset" / WEIGHTS).symlink_to("../elsewhere.h5")
    with pytest.raises(ExportError, match=f"{WEIGHTS} lies outside"):
        open_checkpoint(tmp_path / "preset")


def test_saved_models_whose_variables_are_links_out_of_them(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints / "bert" / "saved_model" / "1", tmp_path / "saved")
    (tmp_path / "variables").mkdir()
    for path in (folder / "variables").iterdir():
        shutil.move(path, tmp_path / "variables" / path.name)
        path.symlink_to(tmp_path / "variables" / path.name)
    with pytest.raises(ExportError, match=r"variables\..* lies outside"):
        open_checkpoint(folder)

"""Bundles for others: made for another encoder, checked, packed."""

from __future__ import annotations

import json
import shutil
import zipfile

import pytest
import torch

from liver_monai.errors import InputError
from liver_monai.model.authoring import new_bundle, pack_bundle, verify_bundle
from liver_monai.model.bundle import SHIPPED, describe_bundles, list_bundles, override_bundle, set_training_data
from liver_monai.model.network import build_network
from liver_monai.model.weights import save_weights
from liver_monai.spec import ModelSpec


def errors(bundle):
    return {check.name: check.error for check in verify_bundle(bundle) if check.error}


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(SHIPPED / "mobilenet", tmp_path / "mobilenet")


@pytest.fixture
def trained(bundle):
    spec = ModelSpec(encoder="mobilenet_v2")
    save_weights(build_network(spec), bundle / "models" / "model.pt", spec=spec)
    return bundle


@pytest.mark.parametrize("name", list_bundles())
def test_every_shipped_bundle_is_whole_and_says_what_it_is(name):
    assert errors(SHIPPED / name) == {}
    assert "DeepLabV3+" in describe_bundles()[name]


@pytest.mark.parametrize("encoder", ["resnet18", "tu-mobilenetv3_small_050"])
def test_a_new_bundle_is_whole_and_declares_its_encoder(tmp_path, encoder):
    made = new_bundle("mine", encoder=encoder, folder=tmp_path)

    assert errors(made) == {}
    for name in ("train.json", "inference.json"):
        assert json.loads((made / "configs" / name).read_text())["spec"]["encoder"] == encoder
    metadata = json.loads((made / "configs" / "metadata.json").read_text())
    assert metadata["name"] == "liver-monai mine"
    assert encoder in metadata["description"]
    assert "resnet34" not in (made / "docs" / "README.md").read_text()


@pytest.mark.parametrize(
    ("encoder", "says"),
    [
        ("resnet43", "did you mean 'resnet34'"),
        ("vgg11", "dilated"),
        ("densenet121", "dilated"),
        ("tu-no_such_model", "no_such_model"),
    ],
)
def test_an_encoder_that_cannot_be_used_is_refused_and_nothing_is_made(tmp_path, encoder, says):
    with pytest.raises(InputError, match=says):
        new_bundle("mine", encoder=encoder, folder=tmp_path)

    assert not list(tmp_path.iterdir())


def test_a_bundle_is_never_made_over_another(tmp_path):
    new_bundle("mine", encoder="resnet18", folder=tmp_path)

    with pytest.raises(InputError, match="is there already"):
        new_bundle("mine", encoder="resnet18", folder=tmp_path)


def test_what_is_wrong_with_a_bundle_is_told_all_at_once(trained):
    (trained / "docs" / "data_license.txt").unlink()
    inference = json.loads((trained / "configs" / "inference.json").read_text())
    inference["spec"]["slab_size"] = 3
    (trained / "configs" / "inference.json").write_text(json.dumps(inference))

    found = errors(trained)

    assert "docs/data_license.txt" in found["files"]
    assert "slab_size" in found["one spec"]
    assert "(5, 3)" in found["metadata"]
    assert "slab_size 5 -> 3" in found["weights"]
    assert "forward pass" not in found


def test_an_override_of_the_slab_keeps_the_bundle_whole(bundle):
    override_bundle(bundle, {"spec#slab_size": 3})

    assert errors(bundle) == {}


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # on its way out, but MONAI Deploy takes no other
def test_a_packed_bundle_unpacks_to_the_same_bundle_without_private_paths(trained, tmp_path):
    set_training_data(trained, "/home/someone/hospital")
    (trained / "store").mkdir()
    (trained / "store" / "7.image.npy").write_bytes(b"voxels of a patient")

    packed = pack_bundle(trained, tmp_path / "packed.zip", torchscript=True)

    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "unpacked")
        content = b"".join(archive.read(name) for name in archive.namelist())
    unpacked = tmp_path / "unpacked" / "mobilenet"
    assert errors(unpacked) == {}
    assert b"hospital" not in content
    assert b"voxels of a patient" not in content
    network = build_network(ModelSpec(encoder="mobilenet_v2")).eval()
    network.load_state_dict(torch.load(unpacked / "models" / "model.pt", weights_only=True))
    slab = torch.rand(1, 5, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(torch.jit.load(unpacked / "models" / "model.ts")(slab), network(slab))


def test_untrained_bundles_have_no_torchscript(bundle, tmp_path):
    with pytest.raises(InputError, match="no weights"):
        pack_bundle(bundle, tmp_path / "packed.zip", torchscript=True)

    assert not list(tmp_path.glob("*packed*"))


def test_encoder_weights_from_a_file(tmp_path):
    donor = build_network(ModelSpec(encoder="resnet18", slab_size=5))
    torch.save(donor.encoder.state_dict(), tmp_path / "encoder.pt")

    same = build_network(ModelSpec(encoder="resnet18", slab_size=5), encoder_weights=str(tmp_path / "encoder.pt"))
    other = build_network(ModelSpec(encoder="resnet18", slab_size=3), encoder_weights=str(tmp_path / "encoder.pt"))

    states = [network.encoder.state_dict() for network in (donor, same, other)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)
        if name != "conv1.weight":  # made for five channels
            torch.testing.assert_close(states[2][name], value)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (b"text", "no state_dict"), ({"other": torch.zeros(1)}, "fits 0 of")]
)
def test_encoder_weights_that_cannot_be_used(tmp_path, content, says):
    path = tmp_path / "encoder.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)

    with pytest.raises(InputError, match=says):
        build_network(ModelSpec(encoder="resnet18"), encoder_weights=str(path))


def test_published_weights_without_a_network_name_the_way_out():
    """Tests run with the hub switched off: the error is the one an isolated machine gives."""
    with pytest.raises(InputError, match="spec#encoder_weights=FILE"):
        build_network(ModelSpec(encoder="resnet18"), encoder_weights="imagenet")

import json

import pytest
import torch
from safetensors.torch import save_file

from seg25d.core.errors import ModelError
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import ModelHeader, load_header, load_model, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.slices import Slices


@pytest.fixture
def header():
    plan = ConfigurationPlan(
        spacing_mm=(3.0, 1.0, 1.0),
        normalization=(ChannelNormalization(channel="MRI", scheme="zscore"),),
        store="store",
        window=(4, 8, 8),
        batch_size=2,
        representation=Slices(axis=0, context=1),
        network=UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3))),
        mirror_axes=(0, 1),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={"window": "because"},
    )
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}, regions_class_order=(1, 2))
    description = DatasetDescription(
        channel_names=("MRI",), labels=labels, file_ending=".nrrd", num_training=3, metadata={"licence": "none"}
    )
    return ModelHeader(
        dataset_name="Dataset001_Test", configuration="axial", fold="all", plan=plan, description=description
    )


def test_comes_back_as_it_was(header, tmp_path):
    model = header.build_model()
    save_model(tmp_path / "model.safetensors", model.state_dict(), header)
    loaded, state = load_model(tmp_path / "model.safetensors")
    assert loaded == header
    assert load_header(tmp_path / "model.safetensors") == header
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_files_from_before_there_were_fine_models_can_be_read(header, tmp_path):
    old = json.loads(header.model_dump_json())
    del old["fine"]
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"seg25d": json.dumps(old)})
    assert load_header(tmp_path / "model.safetensors") == header
    fine = header.model_copy(update={"fine": FineConfig(margin=3)})
    save_model(tmp_path / "fine.safetensors", {"a": torch.zeros(1)}, fine)
    assert load_header(tmp_path / "fine.safetensors") == fine


def test_shared_and_oddly_laid_out_tensors_are_saved(header, tmp_path):
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    save_model(tmp_path / "model.safetensors", {"a": tensor, "b": tensor[:, :1], "c": tensor}, header)
    _, state = load_model(tmp_path / "model.safetensors")
    assert torch.equal(state["a"], tensor)
    assert torch.equal(state["b"], tensor[:, :1])


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"gone\.safetensors does not exist"):
        load_model(tmp_path / "gone.safetensors")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 4096])
def test_damaged_files_are_named(tmp_path, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.safetensors is damaged"):
        load_model(tmp_path / "bad.safetensors")


def test_truncated_files_are_named(header, tmp_path):
    path = tmp_path / "short.safetensors"
    save_model(path, header.build_model().state_dict(), header)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"short\.safetensors is damaged"):
        load_model(path)


def test_files_of_other_programs_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not written by seg25d"):
        load_model(tmp_path / "other.safetensors")


def test_a_header_that_does_not_fit_names_the_place(header, tmp_path):
    changed = json.loads(header.model_dump_json()) | {"schema_version": 99}
    save_file({"a": torch.zeros(1)}, tmp_path / "new.safetensors", metadata={"seg25d": json.dumps(changed)})
    with pytest.raises(ModelError, match="schema_version"):
        load_model(tmp_path / "new.safetensors")


def test_a_method_that_is_not_known_is_named_with_those_that_are(header, tmp_path):
    content = header.model_dump(mode="json")
    content["plan"]["representation"] = {"name": "cubes"}
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(1)}, path, metadata={"seg25d": json.dumps(content)})
    with pytest.raises(ModelError, match=r"plan\.representation: .*'cubes'; known: slices, (.|\n)*another version"):
        load_header(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_name_the_file(header, tmp_path, value):
    state = header.build_model().state_dict()
    next(iter(state.values())).view(-1)[-1] = value
    save_model(tmp_path / "model.safetensors", state, header)
    with pytest.raises(ModelError, match=r"model\.safetensors: the weights .* are NaN or infinite"):
        load_model(tmp_path / "model.safetensors")


def test_large_weights_whose_sum_is_infinite_are_numbers(header, tmp_path):
    state = {"a": torch.full((4,), 3e38)}
    save_model(tmp_path / "model.safetensors", state, header)
    assert torch.equal(load_model(tmp_path / "model.safetensors")[1]["a"], state["a"])


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("description.file_ending", "/../../x/evil.nii.gz"),
        ("configuration", "../axial"),
        ("dataset_name", "a" * 400),
        ("fold", "../0"),
        ("fold", -1),
        ("plan.mirror_axes", [0, 1, 2] * 8),
        ("plan.mirror_axes", [0, 0]),
        ("plan.spacing_mm", [1e-9, 1.0, 1.0]),
        ("plan.window", [4, 8, 1 << 20]),
        ("plan.network.encoder_blocks", 1_000_000_000),
        ("plan.network.widths", [4, 30000]),
        ("plan.representation.context", 1_000_000),
        ("plan.normalization", [{"channel": "MRI", "scheme": "ct"}]),
        ("description.channel_names", []),
        ("description.labels", {"names": {str(value): value for value in range(100_000)}}),
        ("description.labels", {"names": {"background": 0, "a": 1 << 40}}),
    ],
)
def test_what_no_model_has_is_refused_by_its_place(header, tmp_path, place, value):
    content = json.loads(header.model_dump_json())
    *path, last = place.split(".")
    inside = content
    for key in path:
        inside = inside[key]
    inside[last] = value
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"seg25d": json.dumps(content)})
    with pytest.raises(ModelError, match=rf"model\.safetensors is not valid:\n  {place.split('.')[0]}"):
        load_header(tmp_path / "model.safetensors")

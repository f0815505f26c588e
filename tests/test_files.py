import pickle

import pytest
import torch
import yaml
import zoo

import wavecomp as wc
from wavecomp.files import read_checkpoint


def save(folder, state, model="wavecomp.DWT1d"):
    config = {
        "model": {
            "init_args": {
                "model": {"class_path": "torch.nn.Linear", "init_args": {"in_features": 2, "out_features": 3}}
            }
        }
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({"state_dict": state}, folder / "last.ckpt")


def test_load_rebuilds_from_the_config(tmp_path):
    linear = torch.nn.Linear(2, 3)
    save(
        tmp_path, {f"model.{name}": value for name, value in linear.state_dict().items()} | {"metrics.x": torch.ones(1)}
    )
    loaded = wc.load(tmp_path)
    assert torch.equal(loaded.weight, linear.weight) and not loaded.training


def test_a_pickle_is_never_opened(tmp_path):
    class Harm:
        def __reduce__(self):
            return print, ("harm",)

    torch.save({"state_dict": {"x": Harm()}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="damaged or no checkpoint of tensors"):
        read_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "raw.ckpt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match="damaged or no checkpoint of tensors"):
        read_checkpoint(tmp_path / "raw.ckpt")


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint .*last.ckpt does not exist"):
        wc.load(tmp_path)
    save(tmp_path, {"model.weight": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="does not fit the model in .*config.yaml"):
        wc.load(tmp_path)
    (tmp_path / "config.yaml").write_text("model: 3")
    with pytest.raises(ValueError, match="has no entry model.init_args.model"):
        wc.load(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "model: {init_args: {model: {class_path: os.system, init_args: {command: ls}}}}"
    )
    with pytest.raises(ValueError, match="does not describe a model"):
        wc.load(tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="config .*config.yaml does not exist"):
        wc.load(tmp_path)
    torch.save({"weights": 1}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="holds no state_dict"):
        wc.load(tmp_path)


def test_zoo_models_survive_the_state_dict(tmp_path):
    one, other = zoo.perturb(zoo.language_model()), zoo.language_model()
    other.load_state_dict(one.state_dict())
    tokens = torch.randint(256, (1, 40))
    assert torch.equal(one(tokens), other(tokens))

"""Weight files: parts, precisions, old formats, and files that are cut or hold more than tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from seesr import WeightsError
from seesr.weights.state_dict import assign_state_dict, read_state_dict


def test_weights_that_do_not_fit_name_the_first_few_keys() -> None:
    model = torch.nn.Linear(2, 3)
    before = model.weight.clone()
    with pytest.raises(WeightsError, match=r"1 missing \(bias\); 1 unexpected \(extra\); 1 of another shape \(weight"):
        assign_state_dict(model, {"weight": torch.zeros(4, 2), "extra": torch.zeros(1)}, "file")
    assert torch.equal(model.weight, before)


def test_a_legacy_file_with_code_in_it_is_refused(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return (print, ("this must not be printed",))

    torch.save({"model": Code()}, tmp_path / "DAPE.pth")
    with pytest.raises(WeightsError, match="holds more than tensors and was refused"):
        read_state_dict(tmp_path, "DAPE")


@pytest.mark.parametrize("name", ["DAPE.pth", "DAPE.safetensors"])
def test_a_truncated_weight_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(WeightsError, match=f"{name} "):
        read_state_dict(tmp_path, "DAPE")


def test_of_a_file_a_part_is_read_in_another_precision(tmp_path: Path) -> None:
    tensors = {f"{kind}.{n}": torch.full((2,), float(n)).half() for kind in "ab" for n in range(150)}
    save_file(tensors | {"a.position_ids": torch.arange(3)}, tmp_path / "x.safetensors")
    found = read_state_dict(tmp_path, "x", torch.bfloat16, containing="a.")
    assert len(found) == 151
    assert {tensor.dtype for key, tensor in found.items() if key != "a.position_ids"} == {torch.bfloat16}
    assert found["a.position_ids"].tolist() == [0, 1, 2]
    assert all(found[f"a.{n}"].tolist() == [n, n] for n in range(150))
    assert read_state_dict(tmp_path, "x")["b.7"].dtype == torch.float16


def test_a_file_of_the_oldest_format_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(3.0)}, tmp_path / "DAPE.pth", _use_new_zipfile_serialization=False)
    assert read_state_dict(tmp_path, "DAPE")["w"].tolist() == [0, 1, 2]


def test_a_cut_file_in_a_weights_folder_is_named(tmp_path: Path) -> None:
    save_file({"w": torch.ones(100)}, tmp_path / "DAPE.safetensors")
    content = (tmp_path / "DAPE.safetensors").read_bytes()
    (tmp_path / "DAPE.safetensors").write_bytes(content[:-40])
    with pytest.raises(WeightsError, match=r"DAPE.safetensors is not a complete safetensors file"):
        read_state_dict(tmp_path, "DAPE")

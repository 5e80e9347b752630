"""How many jobs run side by side, and what each is given of the machine."""

import pytest

from fer.system import slots as module
from fer.system.slots import slots


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets what the machine has."""

    def have(cores=4, memory=100.0, gpus=()):
        for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(module, "usable_cores", lambda: cores)
        monkeypatch.setattr(module, "free_memory_gb", lambda: memory)
        monkeypatch.setattr(module, "visible_gpus", lambda: list(gpus))

    return have


@pytest.mark.parametrize(
    ("number", "jobs", "has", "threads", "description"),
    [
        ("auto", 10, {}, ["1"] * 4, "4 side by side on 4 cores, 1 thread each"),
        ("auto", 2, {}, ["2"] * 2, "2 side by side on 4 cores, 2 threads each"),
        ("auto", 9, {"memory": 5.0}, ["2"] * 2, "2 side by side on 4 cores, 5.0 GB of memory free, 2 threads each"),
        ("auto", 9, {"memory": 0.5}, [None], "one at a time on 4 cores, 0.5 GB of memory free"),
        ("auto", 9, {"memory": None}, ["1"] * 4, "4 side by side on 4 cores, 1 thread each"),
        ("auto", 1, {}, [None], "one at a time on 4 cores"),
        (6, 10, {}, ["1"] * 6, "6 side by side on 4 cores, 1 thread each"),
        (1, 10, {"cores": 1}, [None], "one at a time on 1 core"),
    ],
)
def test_cores_and_memory_say_how_many(machine, number, jobs, has, threads, description):
    machine(**has)
    result = slots(number, jobs, {"cpu", "auto"})
    assert [slot.get("OMP_NUM_THREADS") for slot in result.environments] == threads
    assert result.description == description


def test_threads_that_the_user_has_set_stay(machine, monkeypatch):
    machine()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "2")
    limits = {"OMP_NUM_THREADS": "3", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    assert slots("auto", 9, {"auto"}).environments[0] == limits
    machine(gpus=["0"])
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(2, 9, {"auto"}).environments[1] == {"CUDA_VISIBLE_DEVICES": "0", **limits}


@pytest.mark.parametrize(
    ("number", "jobs", "gpus", "visible", "description"),
    [
        ("auto", 9, ["0", "1"], ["0", "1"], "2 side by side on 2 GPUs, 8 threads each"),
        ("auto", 9, ["5"], ["5"], "one at a time on 1 GPU"),
        (3, 9, ["0", "1"], ["0", "1", "0"], "3 side by side on 2 GPUs, 5 threads each"),
        (20, 20, ["0"], ["0"] * 20, "20 side by side on 1 GPU, 1 thread each"),
        ("auto", 1, ["0", "1"], ["0"], "one at a time on 2 GPUs"),
    ],
)
def test_each_gpu_is_a_slot(machine, number, jobs, gpus, visible, description):
    machine(cores=16, gpus=gpus)
    result = slots(number, jobs, {"auto"})
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in result.environments] == visible
    assert result.description == description


@pytest.mark.parametrize("gpus", [[], ["0"]])
@pytest.mark.parametrize(("jobs", "cores", "each"), [(3, 16, "5"), (3, 2, "1"), (1, 16, None)])
def test_jobs_side_by_side_share_the_cores(machine, gpus, jobs, cores, each):
    machine(cores=cores, gpus=gpus)
    for environment in slots(jobs, jobs, {"auto"}).environments:
        assert environment.get("OMP_NUM_THREADS") == environment.get("TORCHINDUCTOR_COMPILE_THREADS") == each


def test_jobs_of_the_processor_take_no_gpu(machine):
    machine(gpus=["0"])
    assert "CUDA_VISIBLE_DEVICES" not in slots("auto", 4, {"cpu"}).environments[0]


def test_gpus_are_called_as_the_user_calls_them(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SIGNS_OF_A_GPU", (str(tmp_path),))
    counted = tmp_path / "python"
    counted.write_text("#!/bin/sh\necho 2\n")  # in place of torch, which sees what this machine has
    counted.chmod(0o755)
    monkeypatch.setattr(module.sys, "executable", str(counted))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert module.visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 7")
    assert module.visible_gpus() == ["3", "7"]


def test_a_container_has_limits_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "GROUP", tmp_path)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    assert module.usable_cores() == 64
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert module.usable_cores() == 3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert module.usable_cores() == 64
    for name, value in (("memory.max", 10**9), ("memory.current", 8 * 10**8)):
        (tmp_path / name).write_text(f"{value}\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000000\n")
    free = module.free_memory_gb()
    assert free is None or free == pytest.approx(0.5)


def test_a_job_on_several_devices_has_as_many_gpus_or_cores(machine):
    machine(gpus=("0", "1", "2", "3", "4"), cores=8)
    result = slots("auto", 9, {"auto"}, devices=2)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in result.environments] == ["0,1", "2,3"]
    assert {slot["OMP_NUM_THREADS"] for slot in result.environments} == {"2"}
    machine(cores=4)
    result = slots("auto", 9, {"cpu"}, devices=2)
    assert [slot["OMP_NUM_THREADS"] for slot in result.environments] == ["1", "1"]

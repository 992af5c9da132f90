"""A runtime environment is what its tasks find: variables, directory, modules, and what a hook has set up."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncray as ray
from asyncray.exceptions import RuntimeEnvSetupError
from tests.cluster import programs
from tests.cluster.patience import get

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_LEASES_KEPT = {"lease_keep_s": 0}


@pytest.fixture(autouse=True)
def no_session_is_left() -> Iterator[None]:
    """End what a failed test has left open."""
    yield
    ray.shutdown()


@ray.remote
def variable(name: str) -> str | None:
    return os.environ.get(name)


@ray.remote
def pid() -> int:
    return os.getpid()


def with_env(task: Any, **fields: Any) -> Any:
    """The task in an environment with these fields."""
    return task.options(runtime_env=fields)


class TestVariables:
    def test_a_task_finds_those_that_it_asked_for(self) -> None:
        ray.init(num_cpus=1)
        assert get(with_env(variable, env_vars={"COLOUR": "blue"}).remote("COLOUR")) == "blue"

    def test_a_reference_stands_for_what_the_worker_has_already(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLOUR", "blue")
        ray.init(num_cpus=1)
        env = {"COLOUR": "dark ${COLOUR}", "OTHER": "<${COLOUR}|${NO_SUCH_VARIABLE}>"}
        task = with_env(variable, env_vars=env)
        assert get([task.remote("COLOUR"), task.remote("OTHER")]) == ["dark blue", "<blue|>"]

    def test_those_of_init_hold_for_every_task_and_the_tasks_own_come_on_top(self) -> None:
        ray.init(num_cpus=1, runtime_env={"env_vars": {"COLOUR": "blue", "SIZE": "big"}})
        assert get([variable.remote("COLOUR"), variable.remote("SIZE")]) == ["blue", "big"]
        task = with_env(variable, env_vars={"COLOUR": "red"})
        assert get([task.remote("COLOUR"), task.remote("SIZE")]) == ["red", "big"]

    def test_other_tasks_and_the_driver_do_not_see_them(self) -> None:
        ray.init(num_cpus=1)
        assert get(with_env(variable, env_vars={"COLOUR": "blue"}).remote("COLOUR")) == "blue"
        assert get(variable.remote("COLOUR")) is None
        assert "COLOUR" not in os.environ

    def test_tasks_of_equal_environments_share_workers_and_others_do_not(self) -> None:
        ray.init(num_cpus=1)
        seen = [
            get(with_env(pid, env_vars={"COLOUR": colour}).remote()) for colour in ("blue", "blue", "red")
        ]
        assert seen[0] == seen[1] != seen[2]
        assert get(pid.remote()) not in seen

    def test_calls_of_a_task_inherit_its_environment_and_add_to_it(self) -> None:
        ray.init(num_cpus=1, runtime_env={"env_vars": {"SIZE": "big"}})

        @ray.remote
        def outer() -> list[str | None]:
            plain = ray.get([variable.remote(name) for name in ("COLOUR", "SIZE")])
            task = variable.options(runtime_env={"env_vars": {"COLOUR": "red"}})
            return plain + ray.get([task.remote(name) for name in ("COLOUR", "SIZE")])

        assert get(with_env(outer, env_vars={"COLOUR": "blue"}).remote()) == ["blue", "big", "red", "big"]

    def test_coroutines_find_them_too(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        async def colour() -> str:
            return os.environ["COLOUR"]

        assert get(with_env(colour, env_vars={"COLOUR": "blue"}).remote()) == "blue"

    def test_the_context_tells_what_calls_inherit(self) -> None:
        ray.init(num_cpus=1, runtime_env={"env_vars": {"SIZE": "big"}})
        told = ray.remote(lambda: ray.get_runtime_context().runtime_env)
        assert get(with_env(told, env_vars={"COLOUR": "blue"}).remote()) == {
            "env_vars": {"COLOUR": "blue", "SIZE": "big"}
        }
        assert ray.get_runtime_context().runtime_env == {"env_vars": {"SIZE": "big"}}


class TestVariablesThatActAtStart:
    """Those that an interpreter, or its loader, reads when it starts: such tasks have their own template."""

    def test_the_interpreter_has_read_them(self) -> None:
        ray.init(num_cpus=1)
        look = ray.remote(lambda: (sys.flags.hash_randomization, sys.flags.optimize, hash("a")))
        plain = get(look.remote())
        seen = [
            get(
                with_env(look, env_vars={"PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "1", "NOTE": note}).remote()
            )
            for note in ("a", "b")
        ]
        assert seen[0] == seen[1]
        assert seen[0][:2] == (0, 1)
        assert plain[:2] == (sys.flags.hash_randomization, sys.flags.optimize)

    def test_the_loader_has_read_them(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        def at_start() -> list[str]:
            words = Path(f"/proc/{os.getppid()}/environ").read_text().split("\0")
            return [word for word in words if word.startswith("LD_LIBRARY_PATH")]

        env = {"LD_LIBRARY_PATH": "/made/up:${LD_LIBRARY_PATH}"}
        before = os.environ.get("LD_LIBRARY_PATH", "")
        assert get(with_env(at_start, env_vars=env).remote()) == [f"LD_LIBRARY_PATH=/made/up:{before}"]
        assert get(with_env(variable, env_vars=env).remote("LD_LIBRARY_PATH")) == f"/made/up:{before}"

    def test_modules_are_found_on_a_pythonpath(self, tmp_path: Path) -> None:
        (tmp_path / "only_on_the_path.py").write_text("value = 7\n")
        ray.init(num_cpus=1)

        @ray.remote
        def value() -> int:
            import only_on_the_path  # type: ignore[import-not-found]

            return int(only_on_the_path.value)

        assert get(with_env(value, env_vars={"PYTHONPATH": str(tmp_path)}).remote()) == 7
        with pytest.raises(ModuleNotFoundError):
            get(value.remote())

    def test_the_time_zone_is_the_one_asked_for(self) -> None:
        ray.init(num_cpus=1)
        zone = ray.remote(lambda: (time.tzname[0], time.localtime(0).tm_hour))
        assert get(with_env(zone, env_vars={"TZ": "XXX-5"}).remote()) == ("XXX", 5)

    def test_tasks_that_differ_in_others_share_one_template(self) -> None:
        ray.init(num_cpus=1)
        parents = [
            get(with_env(ray.remote(os.getppid), env_vars={"LD_NOTHING": "1", "NOTE": note}).remote())
            for note in ("a", "b")
        ]
        assert parents[0] == parents[1] != get(ray.remote(os.getppid).remote())

    def test_those_of_init_hold_from_the_first_worker_on(self) -> None:
        ray.init(num_cpus=2, runtime_env={"env_vars": {"PYTHONHASHSEED": "0", "COLOUR": "blue"}})
        seen = get([ray.remote(lambda: sys.flags.hash_randomization).remote(), variable.remote("COLOUR")])
        assert seen == [0, "blue"]

    def test_coroutines_and_calls_inside_have_them_too(self) -> None:
        ray.init(num_cpus=1)

        @ray.remote
        async def outer() -> list[int]:
            inner = ray.remote(lambda: sys.flags.hash_randomization)
            return [sys.flags.hash_randomization, await inner.remote()]

        assert get(with_env(outer, env_vars={"PYTHONHASHSEED": "0"}).remote()) == [0, 0]

    def test_an_interpreter_that_cannot_start_so_is_an_error_at_the_caller(self) -> None:
        ray.init(num_cpus=1)
        with pytest.raises(RuntimeEnvSetupError):
            get(with_env(pid, env_vars={"PYTHONHOME": "/no/such/folder"}).remote())
        assert get(pid.remote()) != os.getpid()


class TestFiles:
    def test_the_working_dir_is_where_a_task_runs_and_imports_from(self, tmp_path: Path) -> None:
        (tmp_path / "only_in_the_directory.py").write_text("value = 7\n")
        ray.init(num_cpus=1)

        @ray.remote
        def look() -> tuple[str, int]:
            import only_in_the_directory  # type: ignore[import-not-found]

            return os.getcwd(), only_in_the_directory.value  # noqa: PTH109

        assert get(with_env(look, working_dir=str(tmp_path)).remote()) == (str(tmp_path), 7)
        assert get(ray.remote(os.getcwd).remote()) == os.getcwd()  # noqa: PTH109

    def test_a_relative_one_is_meant_from_the_driver(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "inside").mkdir()
        monkeypatch.chdir(tmp_path)
        ray.init(num_cpus=1, runtime_env={"working_dir": "inside"})
        monkeypatch.chdir("/")
        assert get(ray.remote(os.getcwd).remote()) == str(tmp_path / "inside")

    def test_calls_inside_inherit_it(self, tmp_path: Path) -> None:
        ray.init(num_cpus=1, runtime_env={"working_dir": str(tmp_path)})

        @ray.remote
        def outer() -> str:
            return ray.get(ray.remote(os.getcwd).remote())

        assert get(outer.remote()) == str(tmp_path)

    def test_one_that_has_gone_since_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        folder = tmp_path / "gone"
        folder.mkdir()
        ray.init(num_cpus=1)
        task = with_env(pid, working_dir=str(folder))
        folder.rmdir()
        with pytest.raises(RuntimeEnvSetupError, match=r"working_dir cannot be entered.*gone"):
            get(task.remote())
        assert get(pid.remote()) != os.getpid()

    def test_modules_may_be_folders_files_and_module_objects(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "one" / "a_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("value = 1\n")
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "a_file.py").write_text("value = 2\n")
        (tmp_path / "three").mkdir()
        (tmp_path / "three" / "an_object.py").write_text("value = 3\n")
        with monkeypatch.context() as patched:
            patched.syspath_prepend(tmp_path / "three")
            import an_object  # type: ignore[import-not-found]
        ray.init(num_cpus=1)

        @ray.remote
        def values() -> list[int]:
            import importlib

            names = ("a_package", "a_file", "an_object")
            return [importlib.import_module(name).value for name in names]

        modules = [str(package), tmp_path / "two" / "a_file.py", an_object]
        assert get(with_env(values, py_modules=modules).remote()) == [1, 2, 3]
        with pytest.raises(ModuleNotFoundError):
            get(values.remote())


class TestHooks:
    def test_a_function_runs_once_in_each_worker_before_its_first_task(self, tmp_path: Path) -> None:
        place = tmp_path / "runs"

        def hook() -> None:
            import threading

            main = threading.current_thread() is threading.main_thread()
            with place.open("a") as file:
                file.write(f"{os.getpid()} {main}\n")

        ray.init(num_cpus=1)
        task = with_env(pid, worker_process_setup_hook=hook)
        first, second = get([task.remote(), task.remote()])
        assert first == second
        assert place.read_text() == f"{first} True\n"

    def test_what_it_sets_up_is_there(self) -> None:
        def hook() -> None:
            import builtins

            builtins.set_up = "yes"  # type: ignore[attr-defined]

        ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook})

        @ray.remote
        async def look() -> str:
            import builtins

            return str(builtins.set_up)  # type: ignore[attr-defined]

        assert get([ray.remote(lambda: set_up).remote(), look.remote()]) == ["yes", "yes"]  # type: ignore[name-defined] # noqa: F821

    def test_it_may_be_given_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "hooks.py").write_text("import os\ndef run():\n    os.environ['HOOK'] = 'ran'\n")
        ray.init(num_cpus=1)
        task = with_env(
            variable, py_modules=[str(tmp_path / "hooks.py")], worker_process_setup_hook="hooks.run"
        )
        assert get(task.remote("HOOK")) == "ran"

    def test_one_that_raises_is_an_error_at_the_caller_with_its_traceback(self) -> None:
        def hook() -> None:
            raise LookupError("no such thing")

        ray.init(num_cpus=1)
        refs = [with_env(pid, worker_process_setup_hook=hook).remote() for _ in range(3)]
        for ref in refs:
            with pytest.raises(RuntimeEnvSetupError, match=r"(?s)hook failed.*LookupError: no such thing"):
                get(ref)
        assert get(pid.remote()) != os.getpid()

    @pytest.mark.parametrize("ending", ["sys.exit(3)", "os._exit(3)", "os.abort()"])
    def test_one_that_ends_its_process_is_an_error_at_the_caller(self, ending: str) -> None:
        def hook() -> None:
            exec(f"import os, sys; {ending}")

        ray.init(num_cpus=1)
        with pytest.raises(RuntimeEnvSetupError):
            get(with_env(pid, worker_process_setup_hook=hook).remote())
        assert get(pid.remote()) != os.getpid()

    @pytest.mark.parametrize("name", ["no_such_module.run", "os.no_such_function", "os.sep"])
    def test_a_name_that_leads_nowhere_is_an_error_at_the_caller(self, name: str) -> None:
        ray.init(num_cpus=1)
        with pytest.raises(RuntimeEnvSetupError, match="hook failed"):
            get(with_env(pid, worker_process_setup_hook=name).remote())

    def test_one_of_init_that_raises_is_an_error_of_every_task(self) -> None:
        def hook() -> None:
            raise LookupError("no such thing")

        ray.init(num_cpus=2, runtime_env={"worker_process_setup_hook": hook})
        for _ in range(3):
            with pytest.raises(RuntimeEnvSetupError, match="no such thing"):
                get(pid.remote())

    def test_what_it_prints_appears(self, tmp_path: Path) -> None:
        out, _ = programs.run(
            tmp_path,
            """
            import asyncray as ray

            def hook(): print("from the hook")

            ray.init(num_cpus=1, runtime_env={"worker_process_setup_hook": hook})
            ray.get(ray.remote(lambda: None).remote())
            """,
        )
        assert "from the hook" in out

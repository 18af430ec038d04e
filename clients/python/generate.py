"""Generates the stubs from proto/ into gen/weir/v1, as one package: `import weir.v1 as weir`.

    python -m pip install --require-hashes -r requirements.txt
    python generate.py
"""

import pathlib
import shutil
import sys

from grpc_tools import protoc

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"
OUT = HERE / "gen"


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    files = sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / "weir/v1").glob("*.proto"))
    failed = protoc.main(
        ["protoc", f"-I{PROTO}", f"--python_out={OUT}", f"--pyi_out={OUT}", f"--grpc_python_out={OUT}", *files]
    )
    if failed:
        return failed
    # protoc makes two modules a file. People think in one package.
    package = OUT / "weir" / "v1"
    modules = [pathlib.PurePosixPath(file).stem for file in files]
    lines = [f"from weir.v1.{name}_pb2{end} import *\n" for name in modules for end in ("", "_grpc")]
    (package / "__init__.py").write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())

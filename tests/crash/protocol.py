"""The stubs of our proto, made by grpcio-tools as any user would make them."""

import importlib
import subprocess
import sys
from pathlib import Path

from grpc_tools import protoc

from deployment import REPOSITORY
from workload import STREAM

PUBLISH = "/bailiwick.v1.Ingest/Publish"


def load(gateway_command, config):
    """The modules of ingest.proto and of the stream's rows, made once in the deployment's folder."""
    out = Path(config).parent / "stubs"
    if not out.exists():
        generate(gateway_command, config, out)
    sys.path.insert(0, str(out))
    # google.rpc is a package of its own on many machines; ours is only a copy of status.proto.
    import google

    google.__path__.append(str(out / "google"))
    return importlib.import_module("bailiwick.v1.ingest_pb2"), importlib.import_module("rows_pb2")


def generate(gateway_command, config, out):
    """Asks the gateway for its stream's rows and runs protoc."""
    rows = subprocess.run([*gateway_command, "proto", "-c", str(config), "--stream", STREAM], check=True, capture_output=True)
    out.mkdir()
    (out / "rows.proto").write_bytes(rows.stdout)
    proto = REPOSITORY / "proto"
    wellknown = Path(protoc.__file__).parent / "_proto"
    files = [*map(str, proto.rglob("*.proto")), str(out / "rows.proto")]
    status = protoc.main(["protoc", f"-I{proto}", f"-I{out}", f"-I{wellknown}", f"--python_out={out}", *files])
    if status != 0:
        raise RuntimeError("protoc failed")


def reason(error):
    """The name of a Reason in a google.rpc.Status: field 1 of the google.rpc.ErrorInfo among its details."""
    for detail in error.details:
        if detail.type_url.endswith("google.rpc.ErrorInfo"):
            length = detail.value[1]
            return detail.value[2 : 2 + length].decode().removeprefix("REASON_")
    return f"code {error.code}"

"""A generic client: learns the services by reflection, calls health, and publishes without any stubs.

usage: reflect.py HOST:PORT
"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
services = set(database.get_services())
assert {"bailiwick.v1.Ingest", "grpc.health.v1.Health"} <= services, services
pool = DescriptorPool(database)


def call(service, method, **fields):
    found = pool.FindServiceByName(service).methods_by_name[method]
    request, response = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
    stub = channel.unary_unary(f"/{service}/{method}", request.SerializeToString, response.FromString)
    return stub(request(**fields))


assert call("grpc.health.v1.Health", "Check").status == 1
try:
    call("bailiwick.v1.Ingest", "PublishOnce", stream="no such stream", producer="generic")
    raise AssertionError("an unknown stream was taken")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert b"REASON_UNKNOWN_STREAM" in details and b"bailiwick" in details, details

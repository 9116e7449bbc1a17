"""Parses junit.xml with junitparser and otlp.json with OpenTelemetry's protocol definitions, and compares both with
verdict.json."""

import json
import pathlib
import sys

import junitparser
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

folder = pathlib.Path(sys.argv[1])
verdict = json.loads((folder / "verdict.json").read_text())


def check(name, found, expected):
    assert found == expected, f"{name}: found {found!r}, expected {expected!r}"
    print(f"{name}: {found!r}")


def junit():
    suites = junitparser.JUnitXml.fromfile(str(folder / "junit.xml"))
    cases = [case for suite in suites for case in suite]
    check("junit tests", len(cases), 1 + sum(len(verdict[part]) for part in ("metrics", "invariants", "absent")))
    check("junit counts", (suites.tests, suites.failures, suites.errors, suites.skipped), (
        len(cases), *(sum(any(isinstance(one, kind) for one in case.result) for case in cases)
                      for kind in (junitparser.Failure, junitparser.Error, junitparser.Skipped))))
    blocking = {metric["name"] for metric in verdict["metrics"] if metric["state"] == "deteriorated" and metric["decides"]}
    failed = {case.name for case in cases if any(isinstance(one, junitparser.Failure) for one in case.result)}
    check("junit failures", failed, blocking | {"verdict"})


def otlp():
    request = json_format.Parse((folder / "otlp.json").read_text(), ExportLogsServiceRequest(), ignore_unknown_fields=False)
    (resource,) = request.resource_logs
    (scope,) = resource.scope_logs
    check("otlp service", {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"], "foreshadow")
    check("otlp events", {record.event_name for record in scope.log_records}, {"gen_ai.evaluation.result"})
    check("otlp records", len(scope.log_records), 1 + len(verdict["metrics"]) + len(verdict["invariants"]))
    attributes = [{one.key: one.value for one in record.attributes} for record in scope.log_records]
    check("otlp verdict", attributes[0]["gen_ai.evaluation.score.label"].string_value, verdict["verdict"])
    values = {one["gen_ai.evaluation.name"].string_value: one["gen_ai.evaluation.score.value"].double_value for one in attributes[1:]}
    check("otlp values", {name: values[name] for name in values if not name.startswith("invariant.")},
         {metric["name"]: metric["candidate"] for metric in verdict["metrics"]})
    assert all(record.time_unix_nano > 1_700_000_000 * 10**9 for record in scope.log_records)


junit()
otlp()

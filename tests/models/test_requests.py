"""What a customer may ask for: every fault is named at once by its place, and never by its value."""

import json
from itertools import combinations
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.alias_generators import to_snake

from models.errors import RequestError
from models.job_requests import parse_create
from models.jobs import KekType, LogLevel
from models.lifecycle import JobType
from models.locations import load_locations
from models.requests import CreateJobBody, JobRequest, ReturnRequest, Shape, ShipRequest, UpdateJobBody, parse
from tests.builders import DRIVE, job_request

# The examples of the description, word for word, in versions 2016-11-01, 2020-08-01 and 2021-01-01 the same.
_ACCOUNT: Final = (
    "/subscriptions/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx/resourceGroups/myResourceGroup"
    "/providers/Microsoft.ClassicStorage/storageAccounts/test"
)
_COMMON: Final[dict[str, Any]] = {
    "storageAccountId": _ACCOUNT,
    "returnAddress": {
        "recipientName": "Test",
        "streetAddress1": "Street1",
        "streetAddress2": "street2",
        "city": "Redmond",
        "stateOrProvince": "wa",
        "postalCode": "98007",
        "countryOrRegion": "USA",
        "phone": "4250000000",
        "email": "Test@contoso.com",
    },
    "returnShipping": {"carrierName": "FedEx", "carrierAccountNumber": "989ffff"},
    "diagnosticsPath": "waimportexport",
    "logLevel": "Verbose",
    "backupDriveManifest": True,
}
CREATE_JOB: Final[dict[str, Any]] = {
    "location": "West US",
    "properties": {
        **_COMMON,
        "jobType": "Import",
        "driveList": [
            {
                "driveId": "9CA995BB",
                "bitLockerKey": "238810-662376-448998-450120-652806-203390-606320-483076",
                "manifestFile": "\\8a0c23f7-14b7-470a-9633-fcd46590a1bc.manifest",
                "manifestHash": "4228EC5D8E048CB9B515338C789314BE8D0B2FDBC7C7A0308E1C826242CDE74E",
                "driveHeaderHash": "0:1048576:FB6B6ED500D49DA6E0D723C98D42C657F2881CC13357C28DCECA6A524F129250157"
                "1A321238540E621AB5BD9C9A32637615919A75593E6CB5C1515DAE341CABF;135266304:143360:C957A189AFC38C4E807"
                "31"
                "252301EB91427CE55E61448FA3C73C6FDDE70ABBC197947EC8D0249A2C639BB10B95957D5820A4BE8DFBBF76FFFA688AE5"
                "CE0D42EC3",
            }
        ],
    },
}
CREATE_EXPORT_JOB: Final[dict[str, Any]] = {
    "location": "West US",
    "properties": {**_COMMON, "jobType": "Export", "export": {"blobList": {"blobPathPrefix": ["/"]}}},
}
UPDATE_JOB: Final = {"properties": {"state": "", "logLevel": "Verbose", "backupDriveManifest": True}}

# Values that would be somebody's, were they not made up: none may stand in the text of an error.
PERSONAL: Final = {
    "recipientName": "Zebulon",
    "streetAddress1": "77 Quince Lane",
    "streetAddress2": "Flat Zz",
    "city": "Xanadu",
    "stateOrProvince": "Qq",
    "postalCode": "99-QZX",
    "countryOrRegion": "Ruritania",
    "phone": "+99-555",
    "email": "zeb@quince.example",
}


def refused(document: object, shape: type[Shape] = CreateJobBody) -> RequestError:
    """Parse what is wrong."""
    with pytest.raises(RequestError) as error:
        parse(shape, json.dumps(document))
    assert str(error.value) == "; ".join(
        f"{place}: {text}" if place else text for place, text in error.value.faults
    )
    return error.value


def faults(document: object, shape: type[Shape] = CreateJobBody) -> dict[str, str]:
    """Parse what is wrong: place -> text."""
    return dict(refused(document, shape).faults)


def body(**properties: Any) -> dict[str, Any]:
    """A body of Create Job with these properties."""
    made: dict[str, Any] = job_request(**properties)["body"]
    return made


def recased(value: Any, change: Any) -> Any:
    """Write every property name of a document in another case."""
    if isinstance(value, dict):
        return {change(name): recased(member, change) for name, member in value.items()}
    return [recased(each, change) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("shape", "document"),
    [(CreateJobBody, CREATE_JOB), (CreateJobBody, CREATE_EXPORT_JOB), (UpdateJobBody, UPDATE_JOB)],
    ids=["CreateJob", "CreateExportJob", "UpdateJob and UpdateExportJob"],
)
@pytest.mark.parametrize("change", [str, str.lower, str.upper, str.swapcase])
def test_the_examples_of_the_description_are_understood(
    shape: type[Shape], document: dict[str, Any], change: Any
) -> None:
    """With property names in any case."""
    assert parse(shape, json.dumps(recased(document, change))) == parse(shape, json.dumps(document))


def test_what_is_left_out_is_what_the_service_takes(sqlite: str) -> None:
    """Section 8: the defaults."""
    details = parse(CreateJobBody, json.dumps(body(returnAddress=None, returnShipping=None))).properties
    assert (details.log_level, details.diagnostics_path) == (LogLevel.ERROR, "waimportexport")
    assert (details.encryption_key.kek_type, details.backup_drive_manifest) == (KekType.MICROSOFT_MANAGED, False)
    assert details.return_address is None


def test_what_belongs_to_the_service_is_read_over() -> None:
    """State, progress and the rest of what a client sends back as it got it."""
    service = {
        "state": "Transferring",
        "percentComplete": 50,
        "provisioningState": "Succeeded",
        "shippingInformation": {"recipientName": 5},
        "cancelRequested": True,
    }
    drive = {**DRIVE, "state": "Completed", "bytesSucceeded": -1}
    assert parse(CreateJobBody, json.dumps(body(**service, driveList=[drive]))) == parse(
        CreateJobBody, json.dumps(body())
    )


def test_the_odd_names_of_old_clients_are_understood() -> None:
    """SDK 0.1.0 sends `blobListblobPath`; the key's id ends in ID or Id."""
    for name in ("blobListblobPath", "blobListBlobPath"):
        details = parse(
            CreateJobBody, json.dumps(body(jobType="Export", driveList=None, export={name: "c/list.xml"}))
        ).properties
        assert details.export is not None
        assert details.export.blob_list_blob_path == "c/list.xml"
    for name in ("kekVaultResourceID", "kekVaultResourceId"):
        key = {"kekType": "CustomerManaged", "kekUrl": "https://v/k", name: "/v"}
        assert parse(
            CreateJobBody, json.dumps(body(encryptionKey=key))
        ).properties.encryption_key.kek_vault_resource_id


def test_every_fault_is_named_at_once_by_its_place() -> None:
    """One answer is enough to set a request right."""
    wrong = body(
        jobType="Sideways",
        logLevel="Loud",
        storageAccountId="account1",
        returnAddress={"recipientName": "", "city": 5},
        driveList=[DRIVE, {"driveId": "a b", "manifestFile": "m", "manifestHash": "xyz"}],
    )
    del wrong["location"]
    assert set(faults(wrong)) == {
        "location",
        "properties.jobType",
        "properties.logLevel",
        "properties.storageAccountId",
        *(
            f"properties.returnAddress.{name}"
            for name in (
                "recipientName",
                "streetAddress1",
                "city",
                "postalCode",
                "countryOrRegion",
                "phone",
                "email",
            )
        ),
        "properties.driveList[1].driveId",
        "properties.driveList[1].manifestHash",
    }


def exporting(export: dict[str, Any]) -> dict[str, Any]:
    """Make the body of an Export job."""
    return body(jobType="Export", driveList=None, export=export)


def test_what_is_wrong_with_the_whole_is_told_beside_what_is_wrong_with_its_parts() -> None:
    """Eleven drives, two of them the same and one misspelt, of an Export job that exports nothing."""
    drives = [{**DRIVE, "driveId": f"D{number}"} for number in range(9)]
    wrong = body(jobType="Export", driveList=[*drives, {**DRIVE, "driveId": "d3"}, {**DRIVE, "driveId": "a b"}])
    told = {(place, text.split(" ")[0]) for place, text in refused(wrong).faults}
    assert told == {
        ("properties", "an"),
        ("properties.driveList", "has"),
        ("properties.driveList", "entry"),
        ("properties.driveList[10].driveId", "String"),
    }
    assert len(refused(wrong).faults) == 5


WRONG: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "an Import job without drives": (body(driveList=[]), "properties", "1 to 10 drives"),
    "an Import job with drives left out": (body(driveList=None), "properties", "1 to 10 drives"),
    "an Import job that exports": (body(export={"blobListBlobPath": "x"}), "properties", "has no export"),
    "an Export job of nothing": (body(jobType="Export", driveList=None), "properties", "needs export"),
    "an Export job with drives": (
        body(jobType="Export", export={"blobListBlobPath": "x"}),
        "properties",
        "no driveList",
    ),
    "an empty export": (exporting({}), "properties.export", "name blobs"),
    "two ways to name blobs": (
        exporting({"blobList": {"blobPath": ["a"]}, "blobListBlobPath": "x"}),
        "properties.export",
        "not both",
    ),
    "a blob list over 32 KiB": (
        exporting({"blobList": {"blobPath": ["ä" * 1000] * 17}}),
        "properties.export",
        "32 KiB",
    ),
    "a prefix without a slash": (
        exporting({"blobList": {"blobPathPrefix": ["x"]}}),
        "properties.export.blobList.blobPathPrefix[0]",
        "pattern",
    ),
    "eleven drives": (
        body(driveList=[{**DRIVE, "driveId": f"D{number}"} for number in range(11)]),
        "properties.driveList",
        "at most 10",
    ),
    "the same drive twice": (
        body(driveList=[DRIVE, {**DRIVE, "driveId": "serial1"}]),
        "properties.driveList",
        "entry 1",
    ),
    "a customer's key that is not named": (
        body(encryptionKey={"kekType": "CustomerManaged"}),
        "properties.encryptionKey",
        "kekUrl",
    ),
    "a path out of the container": (body(diagnosticsPath="../x"), "properties.diagnosticsPath", "no container"),
    "a path that climbs": (body(diagnosticsPath="abc/../x"), "properties.diagnosticsPath", "no container"),
    "a path with a dot": (body(diagnosticsPath="abc/./x"), "properties.diagnosticsPath", "no container"),
    "a container too long": (body(diagnosticsPath="a" * 64), "properties.diagnosticsPath", "no container"),
    "51 tags": ({**body(), "tags": {str(n): "" for n in range(51)}}, "tags", "at most 50"),
    "a long tag": ({**body(), "tags": {"n": "v" * 257}}, "tags", "256"),
    "no properties": ({"location": "West US"}, "properties", "required"),
    "a list": ({"location": "West US", "properties": []}, "properties", "object"),
}


@pytest.mark.parametrize(("document", "place", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_refused(document: dict[str, Any], place: str, text: str) -> None:
    """By the one fault it has."""
    found = faults(document)
    assert list(found) == [place]
    assert text in found[place]


@pytest.mark.parametrize("document", ["", "{", "[]", '"x"', "null", b"\xff\xfe", '{"a": Zebulon}', "1e999"])
def test_what_is_no_object_is_refused(document: str | bytes) -> None:
    """In our own words, without repeating it."""
    with pytest.raises(RequestError) as refused:
        parse(UpdateJobBody, document)
    assert "Zebulon" not in str(refused.value)


NAMES: Final = {
    "jobName": (["ab", "A" + "b" * 63, "a_-9"], ["a", "1ab", "A" + "b" * 64, "a b", "a.b", "ab\n", ""]),
    "subscriptionId": (["s1", "0" * 64], ["", "s/1", "s_1", "0" * 65]),
    "resourceGroupName": (["g", "a.b_(c)-d"], ["", "a/b", "g" * 91, "g g", "g\n", "größe"]),
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_those_that_portal_and_terraform_allow(name: str) -> None:
    """And nothing that could lead out of a path."""
    good, bad = NAMES[name]
    for value in good:
        assert parse(JobRequest, json.dumps({**job_request(), name: value}))
    for value in bad:
        assert list(faults({**job_request(), name: value}, JobRequest)) == [name]


TICKS: Final = {
    JobRequest: ["saveCarrierAndReturnAddressAsDefault", "useSavedCarrierAndReturnAddress"],
    ShipRequest: ["saveCarrierAndReturnAddressAsDefault"],
}


@pytest.mark.parametrize(("shape", "name"), [(shape, name) for shape, names in TICKS.items() for name in names])
def test_nothing_is_ticked_unless_somebody_ticks_it(shape: type[Shape], name: str) -> None:
    """True or false, in these words alone; left out, it is false."""
    document: dict[str, Any] = job_request() if shape is JobRequest else {}
    (field,) = [field for field, told in shape.model_fields.items() if told.alias == name]
    assert getattr(parse(shape, json.dumps(document)), field) is False
    for said in (True, False):
        assert getattr(parse(shape, json.dumps({**document, name: said})), field) is said
    for wrong in ("true", "yes", "on", 1, 0, [True]):
        assert list(faults({**document, name: wrong}, shape)) == [name]


def test_the_body_of_the_api_has_no_tick() -> None:
    """It is read over there: only what an operator's file says beside it counts."""
    ticked = {"saveCarrierAndReturnAddressAsDefault": True}
    document = {**ticked, "properties": {**ticked, "returnAddress": PERSONAL}}
    assert (
        "save_carrier_and_return_address_as_default" not in parse(UpdateJobBody, json.dumps(document)).model_dump()
    )
    inside = {"properties": ticked, "body": ticked, "tags": {"saveCarrierAndReturnAddressAsDefault": "true"}}
    assert parse(ShipRequest, json.dumps(inside)).save_carrier_and_return_address_as_default is False


def test_a_jobs_user_is_a_uuid() -> None:
    """In any case of its letters; left out, the job is nobody's."""
    user = "3F2B8C1E-5d47-4a0b-9a54-0c8de2b7f611"
    assert str(parse(JobRequest, json.dumps({**job_request(), "userId": user})).user_id) == user.lower()
    assert parse(JobRequest, json.dumps({**job_request(), "userId": None})).user_id is None
    assert parse(JobRequest, json.dumps(job_request())).user_id is None
    for wrong in ("", "zeb@quince.example", user[:-1], f"{user} ", user.replace("-", ""), f"{{{user}}}"):
        told = faults({**job_request(), "userId": wrong}, JobRequest)
        assert told == {"userId": "is no UUID, such as 3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611"}
    assert list(faults({**job_request(), "userId": 5}, JobRequest)) == ["userId"]


@pytest.mark.parametrize("state", ["Creating", "Completed", "shipping", 5])
def test_a_customer_asks_for_no_state_but_shipping(state: object) -> None:
    """The others are the service's to say."""
    assert list(faults({"properties": {"state": state}}, UpdateJobBody)) == ["properties.state"]
    for good in ("Shipping", "", None):
        assert parse(UpdateJobBody, json.dumps({"properties": {"state": good}})).properties.state == good


def test_an_update_that_names_a_drive_twice_is_refused() -> None:
    """As at creation, and no more than ten."""
    twice = {"properties": {"driveList": [DRIVE, DRIVE]}}
    assert list(faults(twice, UpdateJobBody)) == ["properties.driveList"]
    eleven = {"properties": {"driveList": [{**DRIVE, "driveId": f"D{number}"} for number in range(11)]}}
    assert list(faults(eleven, UpdateJobBody)) == ["properties.driveList"]


def test_a_character_that_no_database_keeps_is_refused() -> None:
    """U+0000, wherever text may stand."""
    nul = "a\0b"
    wrong = body(
        returnAddress=dict.fromkeys(PERSONAL, nul),
        returnShipping={"carrierName": nul, "carrierAccountNumber": nul},
        deliveryPackage={"carrierName": nul, "trackingNumber": nul, "shipDate": nul},
        driveList=[{**DRIVE, "manifestFile": nul, "driveHeaderHash": nul, "bitLockerKey": nul}],
        diagnosticsPath=f"container/{nul}",
        storageAccountId=_ACCOUNT.replace("myResourceGroup", nul),
    )
    wrong["location"] = nul
    wrong["tags"] = {nul: "", "x": nul}
    assert len(faults(wrong)) == 1 + 1 + len(PERSONAL) + 2 + 3 + 3 + 2
    assert faults({"tags": {nul: ""}}, UpdateJobBody).keys() == {"tags"}


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(PERSONAL)), st.sampled_from(["long", "number", "list", "missing"])))
def test_no_fault_repeats_what_somebody_wrote(wrongs: dict[str, str]) -> None:
    """Whatever is wrong with an address, its values stay out of the text, and so does a tag's name."""
    address: dict[str, Any] = dict(PERSONAL)
    for name, wrong in wrongs.items():
        made = {"long": PERSONAL[name] * 99, "number": 77, "list": [PERSONAL[name]], "missing": None}
        address[name] = made[wrong]
    document = body(returnAddress=address, jobType=PERSONAL["city"], logLevel=PERSONAL["email"])
    document["tags"] = {PERSONAL["recipientName"]: 5, PERSONAL["city"] * 99: "x"}
    document["properties"]["driveList"] = [{"driveId": f"{PERSONAL['recipientName']} {PERSONAL['city']}"}]
    with pytest.raises(RequestError) as refused:
        parse(CreateJobBody, json.dumps(document))
    told = f"{refused.value} {refused.value.faults!r} {refused.value.__context__!r} {refused.value.line}"
    assert not [value for value in PERSONAL.values() if value in told]


def test_a_key_does_not_show_when_a_request_is_printed() -> None:
    """Not even by accident."""
    key = "238810-662376"
    parsed = parse(CreateJobBody, json.dumps(body(driveList=[{**DRIVE, "bitLockerKey": key}])))
    assert key not in repr(parsed)


def test_what_an_operator_sends_back_is_told_in_full() -> None:
    """Carrier, number, how many, when."""
    package = {"carrierName": "UPS", "trackingNumber": "1Z", "driveCount": 2, "shipDate": "2026-06-20"}
    told = parse(ReturnRequest, json.dumps({"returnPackage": package})).return_package
    assert told.model_dump(by_alias=True) == package
    assert set(faults({"returnPackage": {}}, ReturnRequest)) == {f"returnPackage.{name}" for name in package}
    assert parse(CreateJobBody, json.dumps(body())).properties.job_type is JobType.IMPORT


# Create Job by the REST API: names, body and location.


HERE: Final = {"subscriptionId": "s1", "resourceGroupName": "g1", "jobName": "job1"}
USER: Final = UUID("3f2b8c1e-5d47-4a0b-9a54-0c8de2b7f611")


def create(document: object, names: dict[str, str] | None = None) -> JobRequest:
    """Read a request of Create Job as the API does."""
    written = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_create(names or HERE, written, USER, load_locations().find)


def faults_of_create(document: object, names: dict[str, str] | None = None) -> list[str]:
    """Read what is wrong: the places of its faults, in their order."""
    with pytest.raises(RequestError) as refused:
        create(document, names)
    assert refused.value.__cause__ is None
    return [place for place, _ in refused.value.faults]


def test_a_request_of_the_api_is_its_names_and_its_body() -> None:
    """The same as a request file of the intake with both."""
    whole = {**HERE, "userId": str(USER), "body": CREATE_JOB}
    assert create(CREATE_JOB) == parse(JobRequest, json.dumps(whole))
    assert create({**CREATE_JOB, "location": "  westUS "}).body.location == "westUS"
    assert parse_create(HERE, json.dumps(CREATE_JOB).encode(), None, load_locations().find).user_id is None


def test_the_faults_of_names_body_and_location_are_told_at_once() -> None:
    """Each alone, any two, and all of them."""
    parts: dict[str, tuple[str, Any]] = {
        "subscriptionId": ("name", "s_1"),
        "resourceGroupName": ("name", "g/1"),
        "jobName": ("name", "1"),
        "location": ("location", "Atlantis"),
        "properties.logLevel": ("body", "Loud"),
    }
    for size in range(1, len(parts) + 1):
        for chosen in combinations(parts, size):
            names = {**HERE, **{place: parts[place][1] for place in chosen if parts[place][0] == "name"}}
            document = body(logLevel="Loud" if "properties.logLevel" in chosen else "Error")
            document["location"] = "Atlantis" if "location" in chosen else "West US"
            assert sorted(faults_of_create(document, names)) == sorted(chosen)


@pytest.mark.parametrize("location", [None, 5, [], {"name": "West US"}, "", "Atlantis" * 99])
def test_a_location_that_is_none_is_told_beside_the_rest(location: object) -> None:
    """Whatever it is."""
    document = {**body(logLevel="Loud"), "location": location}
    assert set(faults_of_create(document)) == {"location", "properties.logLevel"}
    del document["location"]
    assert set(faults_of_create(document)) == {"location", "properties.logLevel"}


def test_names_are_checked_even_where_there_is_no_body_to_read() -> None:
    """What is no JSON, no object, nested too deep, or no text."""
    deep = b'{"location": "West US", "properties": ' + b'{"a": ' * 20_000
    for document in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, deep, b'{"a": "\\ud800"}'):
        assert faults_of_create(document, {**HERE, "jobName": "1"})[0] == "jobName"
        assert len(faults_of_create(document)) == 1 or document == b'{"a": "\\ud800"}'


@pytest.mark.parametrize(("first", "second"), [("West US", "Atlantis"), ("Atlantis", "West US")])
def test_a_location_given_twice_is_judged_as_it_is_read(first: str, second: str) -> None:
    """By the one that would count, were nothing else wrong; in any case of its name."""
    for name in ("location", "Location", "LOCATION"):
        written = json.dumps(first)[1:-1], json.dumps(second)[1:-1]
        twice = f'{{"location": "{written[0]}", "{name}": "{written[1]}", "properties": %s}}'
        right = (twice % json.dumps(body()["properties"])).encode()
        wrong = (twice % json.dumps(body(logLevel="Loud")["properties"])).encode()
        alone = [] if second == "West US" else ["location"]
        if alone:
            assert faults_of_create(right) == alone
        else:
            assert create(right).body.location == second
        assert sorted(faults_of_create(wrong)) == [*alone, "properties.logLevel"]


SMUGGLED: Final[dict[str, Any]] = {
    "subscriptionId": "s2",
    "resourceGroupName": "g2",
    "jobName": "other",
    "userId": str(UUID(int=0xBAD)),
    "saveCarrierAndReturnAddressAsDefault": True,
    "useSavedCarrierAndReturnAddress": True,
}


def test_a_body_says_nothing_of_names_user_and_ticks() -> None:
    """Wherever in it they stand, and in whatever case; they are read over."""
    for recase in (str, str.upper, to_snake):
        hidden = {recase(name): value for name, value in SMUGGLED.items()}
        document = body()
        document["properties"] = {**document["properties"], **hidden, "body": hidden}
        document = {**hidden, **document, "body": {**body(logLevel="Verbose"), **hidden}, **hidden}
        asked = create(document)
        assert (asked.subscription_id, asked.resource_group_name, asked.job_name) == ("s1", "g1", "job1")
        assert asked.user_id == USER
        assert asked.save_carrier_and_return_address_as_default is False
        assert asked.use_saved_carrier_and_return_address is False
        assert asked.body.properties.log_level is LogLevel.ERROR


def test_a_body_that_closes_its_brace_is_refused() -> None:
    """What comes behind it is never read as part of a request around it."""
    inner = json.dumps(body())
    for tail in (
        ', "userId": "00000000-0000-0000-0000-000000000bad"}',
        ', "saveCarrierAndReturnAddressAsDefault": true, "x": {',
        "}",
        f" {inner}",
        "\0",
        " //",
    ):
        assert faults_of_create((inner + tail).encode()) == [""]
        assert faults_of_create((f'{{"body": {inner}' + tail).encode())[0] in {"", "location"}
    assert create(f"\n {inner} \t".encode()).job_name == "job1"


# The rules of a whole body, and what would get around them by other names of the same properties.
_EXPORT: Final = {"blobList": {"blobPathPrefix": ["/"]}}
_UNDER_OTHER_NAMES: Final[dict[str, dict[str, Any]]] = {
    "an import without drives": {"driveList": None, "jobType": None, "job_type": "Import"},
    "an import with an export": {"jobType": None, "job_type": "Import", "export": _EXPORT},
    "an export without blobs": {"driveList": None, "jobType": None, "job_type": "Export"},
    "an export with drives": {"driveList": None, "jobType": "Export", "export": _EXPORT, "drive_list": [DRIVE]},
    "a drive twice": {
        "driveList": [DRIVE, {"drive_id": "serial1", "manifestFile": "m", "manifestHash": "A" * 32}]
    },
    "eleven drives": {
        "driveList": None,
        "drive_list": [{**DRIVE, "driveId": f"D{number}"} for number in range(11)],
    },
}


@pytest.mark.parametrize("properties", _UNDER_OTHER_NAMES.values(), ids=_UNDER_OTHER_NAMES)
def test_no_rule_is_got_around_by_names_that_the_api_does_not_have(properties: dict[str, Any]) -> None:
    """A column's name is no property's: what is written so is either read over or judged like the rest."""
    try:
        asked = parse(CreateJobBody, json.dumps(body(**properties))).properties
    except RequestError:
        return
    drives = [drive.drive_id.lower() for drive in asked.drive_list or []]
    assert (asked.job_type is JobType.IMPORT) is bool(drives)
    assert (asked.job_type is JobType.EXPORT) is (asked.export is not None)
    assert len(drives) == len(set(drives)) <= 10

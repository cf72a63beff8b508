"""`bursar doctor` shows what a running proxy has met at its providers: targets left out, API keys that rest."""

from proxy.cli.doctor import upstream_findings
from proxy.fake import Script
from tests.cli_runs import Shell
from tests.fleet import fleet

KEYS = ("sk-good-0123456789abcdef01234567", "sk-bad-00123456789abcdef01234567")


async def test_doctor_tells_of_targets_left_out_and_keys_that_rest(store, tmp_path, capsys):
    async with fleet(store, tmp_path, 1, keys=KEYS, accept=KEYS[:1], more="retries: {attempts: 1}\n") as f:
        for _ in range(2):
            assert (await f.home.chat("m")).status == 200  # the key that is refused rests from now on
        f.fakes["a"].script = Script(status=500)
        for _ in range(5):
            assert (await f.home.chat("m")).status == 500
        path, port = tmp_path / "bursar.yaml", f.home.sidecar.ops_url.rpartition(":")[2]
        path.write_text(f.home.text.replace('ops: {listen: "127.0.0.1:0"', f'ops: {{listen: "127.0.0.1:{port}"'))
        ran = await Shell(capsys, path).beside("doctor", "--json")
        left_out, resting = [row for row in ran.json if row["name"] == "upstream a"]
        assert (left_out["state"], resting["state"]) == ("note", "note")
        assert left_out["detail"] == "1 of its targets kept failing and are left out for now"
        assert resting["detail"] == "1 of its API keys were refused or limited and rest"
        assert "providers.a.api_keys" in resting["remedy"]
        assert not any(key in ran.out for key in KEYS)


def test_a_provider_that_is_well_is_said_to_be():
    (found,) = upstream_findings({"openai": {}})
    assert (found.name, found.state) == ("upstream openai", "ok")

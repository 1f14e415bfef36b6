import hashlib

from uav_core.weights.hashes import weights_hash


def test_weights_are_read_once(tmp_path, caplog):
    file, root, read = tmp_path / "unet.safetensors", tmp_path / "root", []
    file.write_bytes(b"abc" * 1000)

    def get():
        return weights_hash(file, root, advance=read.append)

    first = get()
    assert first == hashlib.blake2b(b"abc" * 1000, digest_size=32).hexdigest()
    assert read == [3000]
    assert get() == first and len(read) == 1
    file.write_bytes(b"abd" * 1000)
    assert get() != first and len(read) == 2
    for damage in (b"", b"[]", b'{"x": 1}', b"\xff", b"[" * 100_000):
        (root / "weights.json").write_bytes(damage)
        assert get() == hashlib.blake2b(b"abd" * 1000, digest_size=32).hexdigest()
    assert len(read) == 7 and "are computed again" in caplog.text
    (root / "weights.json").unlink()
    (root / "weights.json").symlink_to(tmp_path / "elsewhere")
    get()
    assert not (tmp_path / "elsewhere").exists()

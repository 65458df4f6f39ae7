"""The public surface is small, and each name of it loads."""

import dlzoo

PUBLIC = {"__version__", "Bundle", "Report", "build_model", "export_model", "list_models"}
PUBLIC |= {"diff", "first_wrong_layer", "open_session", "register_lowering", "verify"}


def test_public_names() -> None:
    assert set(dlzoo.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(dlzoo, name) is not None, name

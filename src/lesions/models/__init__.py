"""Networks. Importing them defers torch's compiler, which is half of what importing timm takes."""

import sys
from types import ModuleType


def _import_timm() -> None:
    """Import timm without torch._dynamo, of which it and torchvision take one function each.

    One says what not to compile, the other what an operator that no backbone has can do. The
    compiler itself is imported by the first torch.compile, or by whoever names it. Where versions
    of theirs take more of it, timm is imported as usual by the first module that names it.
    """
    if "torch._dynamo" not in sys.modules:
        names = {
            "disable": lambda function=None, *_, **__: function or (lambda given: given),
            "is_compile_supported": lambda _: False,
        }
        for name in ("torch._dynamo", "torch._dynamo.utils"):
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(names)
    try:
        import timm  # noqa: F401
    except (ImportError, AttributeError):
        pass
    finally:
        for name in ("torch._dynamo", "torch._dynamo.utils"):
            if not getattr(sys.modules.get(name), "__file__", None):
                sys.modules.pop(name, None)


_import_timm()

"""The session of ONNX Runtime on a bundle: its provider, its options, its errors, and calls that Ctrl-C ends."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import FunctionType
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..errors import BundleError, DeviceError
from ..extras import how_to_get
from ..untrusted import shorten
from .bundle import Bundle

if TYPE_CHECKING:
    import onnxruntime

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# The default search tries every algorithm again for each new length of audio. TF32, on by default too, has 10 bits of
# mantissa: embeddings would differ from those of a CPU by more than the contract's tolerance.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
_FATAL = 4  # log severity; every failure comes back as an exception


def open_session(bundle: Bundle, device: str, threads: int) -> onnxruntime.InferenceSession:
    """The session on a bundle's model, on a device of `Embedder`, with so many threads.

    Raises
    ------
    BundleError
        If ONNX Runtime cannot load the model.
    DeviceError
        If ONNX Runtime is not installed, or CUDA is asked for and does not work.
    """
    try:
        import onnxruntime
        from onnxruntime import ExecutionMode, InferenceSession, SessionOptions, get_available_providers
    except ImportError as error:  # also if uninstalling onnxruntime-gpu took the files of onnxruntime with it
        raise DeviceError(
            "onnxruntime is missing or broken: pip install --force-reinstall onnxruntime, or onnxruntime-gpu for CUDA"
        ) from error

    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # patterns are kept per length of audio, and lengths never end
    # Threads that wait for the next call would take the cores from whoever decodes for it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _FATAL

    def session_on(*providers: str | tuple[str, dict[str, str]]) -> InferenceSession:
        # Its own fallback prints, and would later go on with the CPU, for good, where a call fails on CUDA.
        return InferenceSession(bundle.model, options, providers=list(providers), enable_fallback=0)

    try:
        if device == "cpu" or _CUDA not in get_available_providers():
            session = session_on(_CPU)
        else:
            onnxruntime.set_default_logger_severity(_FATAL)  # where a CUDA that does not load is reported
            without_prints(onnxruntime.preload_dlls)()  # the CUDA and cuDNN that pip installed
            try:
                session = session_on((_CUDA, _CUDA_OPTIONS), _CPU)
            except (RuntimeError, ValueError):
                session = session_on(_CPU)
    except onnx_runtime_errors() as error:
        reason = shorten(error)
        raise BundleError(f"{bundle.model}: ONNX Runtime cannot load it ({reason}); export the bundle again") from error
    session.disable_fallback()
    if device == "cuda" and session.get_providers()[0] != _CUDA:
        raise DeviceError(_why_no_cuda(installed=_CUDA in get_available_providers()))
    return session


def run_interruptibly(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """The outputs of a session, as its `run` gives them; Ctrl-C ends a call between two nodes of the graph.

    Without that it would end after the whole call, which takes seconds for half an hour of audio.
    """
    from onnxruntime import RunOptions

    options = RunOptions()
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        found: list[NDArray[Any]] = session.run(outputs, inputs, options)
        return found
    answer: Future[list[NDArray[Any]]] = Future()

    def run() -> None:
        try:
            answer.set_result(session.run(outputs, inputs, options))
        except Exception as error:
            answer.set_exception(error)

    try:
        threading.Thread(target=run).start()
        return answer.result()
    except BaseException:
        options.terminate = True
        raise


def onnx_runtime_errors() -> tuple[type[Exception], ...]:
    """All that ONNX Runtime raises: its own exceptions, which have no common class, and those that C++ ones become."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError, MemoryError)


def without_prints(function: FunctionType) -> FunctionType:
    """`function` with a `print` of its own, which prints nothing.

    To redirect `sys.stdout` meanwhile would take the prints of all other threads, and leave it redirected where two do.
    """
    names = {**function.__globals__, "print": lambda *_args, **_kwargs: None}
    return FunctionType(function.__code__, names, argdefs=function.__defaults__)


def _why_no_cuda(installed: bool) -> str:
    if installed:
        return (
            "ONNX Runtime cannot start CUDA: it needs an NVIDIA driver and the CUDA and cuDNN libraries of "
            f"{how_to_get('cuda')}"
        )
    return (
        "this ONNX Runtime has no CUDA provider; for an NVIDIA GPU, pip uninstall --yes onnxruntime && "
        f"{how_to_get('cuda')}"
    )

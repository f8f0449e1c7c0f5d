"""Starlette's background tasks, under uvicorn."""
import asyncio
import os
import time

from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

LOG = os.open(os.environ["PEER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
DOWNLOAD = b"x" * (20 << 20)
count = 0


async def note(what):
    os.write(LOG, f"{what} {time.time_ns()}\n".encode())


async def add():
    global count
    count += 1


async def lasting():
    await note("began")
    await asyncio.sleep(0.5)
    await note("finished")


async def failing():
    raise RuntimeError("the first one fails, on purpose")


async def plain(request):
    return PlainTextResponse("ok")


async def defer(request):
    return PlainTextResponse("ok", background=BackgroundTask(add))


async def download(request):
    return Response(DOWNLOAD, background=BackgroundTask(note, "download"))


async def waits_then_defers(request):
    await asyncio.sleep(0.3)
    return PlainTextResponse("ok", background=BackgroundTask(note, "waits-then-defers"))


async def defers_then_waits(request):
    task = BackgroundTask(note, "defers-then-waits")
    await asyncio.sleep(0.3)
    return PlainTextResponse("ok", background=task)


async def stream(request):
    async def chunks():
        for _ in range(20):
            await asyncio.sleep(0.025)
            yield DOWNLOAD[: 64 << 10]

    return StreamingResponse(chunks(), background=BackgroundTask(note, "stream"))


async def lasts(request):
    return PlainTextResponse("ok", background=BackgroundTask(lasting))


async def fails_first(request):
    tasks = BackgroundTasks()
    tasks.add_task(failing)
    tasks.add_task(note, "second")
    return PlainTextResponse("ok", background=tasks)


app = Starlette(
    routes=[
        Route("/plain", plain),
        Route("/defer", defer),
        Route("/download", download),
        Route("/waits-then-defers", waits_then_defers),
        Route("/defers-then-waits", defers_then_waits),
        Route("/stream", stream),
        Route("/lasts", lasts),
        Route("/fails-first", fails_first),
    ]
)

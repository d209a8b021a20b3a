"""Downloads: each file of an export from where it lies, or all of them as one zip that is made while it is sent; and a run
as one page, which is made when it is asked for and lies nowhere."""

from __future__ import annotations

import threading
from pathlib import Path

import plotly
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from zipstream import ZIP_STORED, ZipStream

from app.operator import Operator
from proxsparse import ProxSparseError
from proxsparse.report import report_page
from proxsparse.runs import Sweep
from proxsparse.runs.presets import preset_of

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def routes(operator: Operator) -> list[Route]:
    """What the server answers beside the page: the chart library, the files of finished exports, reports of runs."""

    one_at_a_time = threading.Lock()  # a report takes some seconds of a core

    def files_of(request: Request) -> list[Path]:
        run, method = operator.find_any(request.path_params["run"]), request.path_params.get("method")
        folder = run.export_path(method) / "model"
        return sorted(path for path in folder.glob("*") if path.is_file() and not path.is_symlink())

    def said(answer):
        async def endpoint(request: Request):
            try:
                return await run_in_threadpool(answer, request)
            except ProxSparseError as error:
                return PlainTextResponse(str(error), status_code=404)

        return endpoint

    def one_file(request: Request):
        for path in files_of(request):  # compared with what is there, never joined to a path
            if path.name == request.path_params["name"]:
                return FileResponse(path, filename=path.name)
        raise ProxSparseError("There is no such file in this export.")

    def archive(request: Request):
        files = files_of(request)
        if not files:
            raise ProxSparseError("This run has no finished export: export it first.")
        name = "-".join(request.path_params.values())
        stream = ZipStream(compress_type=ZIP_STORED, sized=True)
        for path in files:
            stream.add_path(path, f"{name}/{path.name}")
        headers = {"Content-Disposition": f'attachment; filename="{name}.zip"', "Content-Length": str(len(stream))}
        return StreamingResponse(iter(stream), media_type="application/zip", headers=headers)

    def report(request: Request):
        run = operator.find(request.path_params["run"])
        with one_at_a_time:
            page = report_page(run)
        headers = {"Content-Disposition": f'attachment; filename="{request.path_params["run"]}.html"'}
        return Response(page, media_type="text/html", headers=headers)

    def preset(request: Request):
        found = Sweep(operator.find_any(request.path_params["sweep"])).job(request.path_params["trial"])
        name = f"{request.path_params['sweep']}-trial-{request.path_params['trial']}.json"
        return JSONResponse(preset_of(found), headers={"Content-Disposition": f'attachment; filename="{name}"'})

    async def chart_library(request: Request):
        return FileResponse(PLOTLY, media_type="text/javascript", headers={"Cache-Control": "max-age=86400"})

    return [
        Route("/plotly.min.js", chart_library),
        Route("/download/{run}.zip", said(archive)),
        Route("/download/{run}/{name}", said(one_file)),
        Route("/download/{run}/of/{method}.zip", said(archive)),
        Route("/download/{run}/of/{method}/{name}", said(one_file)),
        Route("/report/{run}.html", said(report)),
        Route("/preset/{sweep}/{trial:int}.json", said(preset)),
    ]

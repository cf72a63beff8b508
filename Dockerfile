# Two stages: what builds is not in what runs. No shell is needed at run time, and no root.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md ./
COPY proxy ./proxy
COPY adapters ./adapters
COPY accounting ./accounting
RUN python -m venv /app \
 && /app/bin/pip install --no-compile . \
 && /app/bin/python -m compileall -q /app/lib \
 && /app/bin/pip uninstall -y pip

FROM python:3.13-slim
ENV PATH=/app/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY --from=build /app /app
RUN mkdir -m 700 /data && chown 65532:65532 /data
USER 65532:65532
WORKDIR /data
EXPOSE 8080 9090
ENTRYPOINT ["bursar"]
CMD ["serve"]

# docker build -t spectra-exp . && docker run --rm -v "$PWD:/work" spectra-exp run debug=smoke
FROM python:3.12-slim
# The CPU build of torch; for GPUs begin from an image of PyTorch's and leave this line out.
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
COPY . /source
RUN pip install --no-cache-dir /source && rm -rf /source
WORKDIR /work
ENTRYPOINT ["spectra-exp"]

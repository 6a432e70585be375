# Packages the static binary that `make image` builds. It compiles nothing, so it needs no base image.
FROM scratch
# operator or local
ARG VARIANT=operator
ARG TARGETARCH
COPY dist/${VARIANT}/${TARGETARCH}/ /
# A number, because the kubelet cannot tell from a name that the user is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/stream-notifier"]

#!/bin/sh
# Runs an ops test on device cuda, over the PTX inside libvlens_cuda.so: what nvcc emitted, with every access checked.
# usage: run.sh TEST FOLDER_OF_THE_PLUG_IN FOLDER_OF_THE_STAND_INS [small]
# Exit: that of the test; 99 where ptxsim found an error; 77 where it was not there at build time.
set -eu
test=$1 plugin=$2 stand_ins=$3
if [ ! -e "$stand_ins/libcudart.so.13" ]; then
    echo "skipped: ptxsim, an interpreter of PTX, was not found beside the checkout (cmake -DVLENS_PTXSIM=FOLDER)"
    exit 77
fi
# no driver is asked: the plug-in finds the stand-ins before NVIDIA's libraries
shift 3
LD_LIBRARY_PATH=$stand_ins:$plugin exec "$test" cuda "$@"

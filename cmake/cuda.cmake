# Builds _cuda if SEEDBED_CUDA asks for it and a compiler is there, or sets seedbed_without_cuda to
# why not. Included by CMakeLists.txt.

# nvcc from $CUDACXX, the wheels nvidia-cuda-nvcc and friends, a toolkit's folder or the PATH. Sets
# seedbed_nvcc, seedbed_nvcc_version, and seedbed_nvcc_problem if there is none that will do.
function(seedbed_find_nvcc)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c
            "import glob, nvidia; print(*(p for d in nvidia.__path__ for p in glob.glob(d + '/cu*/bin')), sep=';')"
    OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE wheels ERROR_QUIET)
  if(CMAKE_CUDA_COMPILER)
    set(nvcc "${CMAKE_CUDA_COMPILER}")
  elseif(DEFINED ENV{CUDACXX})
    set(nvcc "$ENV{CUDACXX}")
  else()
    find_program(SEEDBED_NVCC nvcc HINTS ${wheels} ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda
                 PATH_SUFFIXES bin)
    set(nvcc "${SEEDBED_NVCC}")
    unset(SEEDBED_NVCC CACHE)  # the next build may have others
  endif()
  set(version "")
  set(problem "")
  if(NOT nvcc)
    set(problem "nvcc was not found")
  else()
    execute_process(COMMAND "${nvcc}" --version OUTPUT_VARIABLE text ERROR_QUIET)
    string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" unused "${text}")
    set(version "${CMAKE_MATCH_1}")
    if(NOT version)
      set(problem "${nvcc} does not run")
    elseif(version VERSION_LESS 12.1)
      set(problem "${nvcc} is of CUDA ${version}; large kernel parameters need 12.1")
    endif()
  endif()
  set(seedbed_nvcc "${nvcc}" PARENT_SCOPE)
  set(seedbed_nvcc_version "${version}" PARENT_SCOPE)
  set(seedbed_nvcc_problem "${problem}" PARENT_SCOPE)
endfunction()

set(seedbed_without_cuda "")
string(TOUPPER "${SEEDBED_CUDA}" seedbed_cuda)
if(seedbed_cuda STREQUAL "")
  set(seedbed_cuda OFF)
elseif(seedbed_cuda MATCHES "^(1|TRUE|YES)$")
  set(seedbed_cuda ON)
elseif(seedbed_cuda MATCHES "^(0|FALSE|NO)$")
  set(seedbed_cuda OFF)
elseif(NOT seedbed_cuda MATCHES "^(ON|OFF|AUTO)$")
  message(FATAL_ERROR "SEEDBED_CUDA is '${SEEDBED_CUDA}'; accepted are ON, OFF and AUTO")
endif()
if(seedbed_cuda STREQUAL OFF)
  set(seedbed_without_cuda "SEEDBED_CUDA=OFF")
  message(STATUS "seedbed: without CUDA (${seedbed_without_cuda})")
  return()
endif()
seedbed_find_nvcc()
if(NOT seedbed_nvcc_problem AND seedbed_cuda STREQUAL AUTO)
  # A compiler that cannot be used must not take the CPU's kernels away.
  unset(CMAKE_CUDA_COMPILER)  # or nothing is checked
  set(ENV{CUDACXX} "${seedbed_nvcc}")
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(seedbed_nvcc_problem "${seedbed_nvcc} does not compile")
  endif()
endif()
if(seedbed_nvcc_problem)
  if(seedbed_cuda STREQUAL ON)
    message(FATAL_ERROR "SEEDBED_CUDA=ON, but ${seedbed_nvcc_problem}. Install a CUDA toolkit, or the "
                        "wheels nvidia-cuda-nvcc, nvidia-cuda-crt, nvidia-cuda-runtime, "
                        "nvidia-cuda-cccl and nvidia-nvvm, or set CUDACXX; or build without CUDA by "
                        "SEEDBED_CUDA=OFF.")
  endif()
  set(seedbed_without_cuda "SEEDBED_CUDA=AUTO, and ${seedbed_nvcc_problem}")
  message(STATUS "seedbed: without CUDA (${seedbed_without_cuda})")
  return()
endif()

# Machine code for every generation that the compiler knows, and PTX that later ones compile.
if(NOT CMAKE_CUDA_ARCHITECTURES AND NOT "$ENV{CUDAARCHS}" STREQUAL "")
  set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})
elseif(NOT CMAKE_CUDA_ARCHITECTURES)
  if(seedbed_nvcc_version VERSION_LESS 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 86-real 89-real 90 100-real 120)
  endif()
endif()
set(CMAKE_CUDA_COMPILER "${seedbed_nvcc}")
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
message(STATUS "seedbed: with CUDA ${seedbed_nvcc_version} for ${CMAKE_CUDA_ARCHITECTURES}")

nanobind_add_module(
  _cuda STABLE_ABI NB_STATIC NOMINSIZE PROTECT_STACK
  csrc/cuda/device_draw.cc csrc/cuda/ffi.cc csrc/cuda/folds.cc csrc/cuda/kernel.cu csrc/cuda/module.cc
  csrc/cuda/schedule.cc csrc/call.cc csrc/ffi_common.cc csrc/plan.cc)
target_include_directories(_cuda PRIVATE csrc)
target_include_directories(_cuda SYSTEM PRIVATE ${SEEDBED_FFI_INCLUDE_DIR}
                                                ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
string(REPLACE ";" " " seedbed_architectures "${CMAKE_CUDA_ARCHITECTURES}")
string(REGEX REPLACE "-[a-z]+" "" seedbed_architectures "${seedbed_architectures}")
target_compile_definitions(
  _cuda PRIVATE SEEDBED_VERSION="${PROJECT_VERSION}"
                SEEDBED_CUDA_ARCHITECTURES="${seedbed_architectures}"
                SEEDBED_CUDA_TOOLKIT="${seedbed_nvcc_version}")
string(REPLACE ";" "," seedbed_host_flags "${hardening_flags}")
# Fused operations are written out, as they are for the CPU; without -use_fast_math numbers keep
# their subnormals, as XLA's do.
target_compile_options(
  _cuda PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra>"
                "$<$<COMPILE_LANGUAGE:CUDA>:-O3;-fmad=false;--threads=0;-Xptxas=-v;-Xcompiler=${seedbed_host_flags}>")
install(TARGETS _cuda LIBRARY DESTINATION seedbed)

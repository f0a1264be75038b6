# Included by CMake at every project() of the llama-cpp-python build (CMAKE_PROJECT_INCLUDE). The package forces
# llama.cpp's common library on; nothing here uses it, and without it the build takes a third of the time.
if(PROJECT_NAME STREQUAL "llama.cpp")
  set(LLAMA_BUILD_COMMON OFF)
endif()

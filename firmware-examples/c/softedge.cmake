# The library `softedge` for the firmware of a CMake project: include this file and link `softedge`.
set(SOFTEDGE ${CMAKE_CURRENT_LIST_DIR}/../.. CACHE PATH "The repository's folder")
set(SOFTEDGE_TARGET thumbv7em-none-eabihf CACHE STRING "The Rust target that means what the compiler's flags mean")
set(SOFTEDGE_CARGO cargo CACHE STRING "Cargo")
set(SOFTEDGE_CARGO_TARGET_DIR ${CMAKE_CURRENT_BINARY_DIR}/softedge CACHE PATH "Where Cargo builds")

set(softedge_archive ${SOFTEDGE_CARGO_TARGET_DIR}/${SOFTEDGE_TARGET}/capi/libsoftedge.a)

# Always asked: Cargo knows whether there is anything to do.
add_custom_target(softedge_build
    COMMAND ${SOFTEDGE_CARGO} rustc --lib --profile capi --no-default-features --features capi
            --crate-type staticlib --target ${SOFTEDGE_TARGET} --target-dir ${SOFTEDGE_CARGO_TARGET_DIR}
    WORKING_DIRECTORY ${SOFTEDGE}
    BYPRODUCTS ${softedge_archive}
    VERBATIM)

add_library(softedge STATIC IMPORTED GLOBAL)
add_dependencies(softedge softedge_build)
set_target_properties(softedge PROPERTIES
    IMPORTED_LOCATION ${softedge_archive}
    INTERFACE_INCLUDE_DIRECTORIES ${SOFTEDGE}/include)
